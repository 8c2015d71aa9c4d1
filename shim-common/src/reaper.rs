//! The one reaper (design, rule 3): turns SIGCHLD into exit notices, and passes on the other
//! signals that a shim listens to. Nothing else collects children.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::SystemTime;

use sys::signal::SignalFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::watch::watch;

/// A child has ended and was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitNotice {
    /// Its pid, free to be used again.
    pub pid: i32,
    /// Its exit code, or 128 + signal.
    pub status: u32,
    /// When it was collected. The kernel keeps no time of an exit; this is the closest.
    pub exited_at: SystemTime,
}

/// What [`Reaper::next`] reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A child ended.
    Exit(ExitNotice),
    /// The shim got this signal: SIGTERM, SIGINT or SIGUSR1.
    Signal(i32),
}

/// The signals that come as [`Notice::Signal`].
const SIGNALS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1];

/// Lets the event loop see the descriptor.
#[derive(Debug)]
struct Source(SignalFd);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The reaper. There is one per process.
#[derive(Debug)]
pub struct Reaper {
    source: AsyncFd<Source>,
    /// There may be children to collect.
    children: bool,
    /// Signals read and not reported yet.
    signals: VecDeque<i32>,
}

impl Reaper {
    /// Blocks SIGCHLD, SIGTERM, SIGINT and SIGUSR1 for the calling thread (call it before there are
    /// others) and listens for them. Children that have ended already are reported as well.
    ///
    /// # Errors
    /// No signal descriptor could be made or registered; there must be a runtime.
    pub fn new() -> io::Result<Self> {
        let [a, b, c] = SIGNALS;
        let source = Source(SignalFd::new(&[libc::SIGCHLD, a, b, c])?);
        let source = watch(source, Interest::READABLE)?;
        Ok(Self {
            source,
            children: true,
            signals: VecDeque::new(),
        })
    }

    /// The next notice. Exits come in the order of reaping, and before any signal that was seen
    /// with them. Cancel safe: a notice is taken only when it is returned.
    ///
    /// # Errors
    /// The kernel refused to read signals or to collect children, which it does for no reason known
    /// to the manual pages.
    pub async fn next(&mut self) -> io::Result<Notice> {
        loop {
            // Several exits may share one SIGCHLD, so children are collected until none is left.
            if self.children {
                match sys::wait::reap()? {
                    Some(exited) => {
                        let (pid, status) = (exited.pid, exited.status);
                        let exited_at = SystemTime::now();
                        return Ok(Notice::Exit(ExitNotice {
                            pid,
                            status,
                            exited_at,
                        }));
                    }
                    None => self.children = false,
                }
            }
            if let Some(signal) = self.signals.pop_front() {
                return Ok(Notice::Signal(signal));
            }
            let mut ready = self.source.readable().await?;
            // Nothing is awaited from here on: what is read is kept in self.
            while let Some(signal) = ready.get_inner().0.read()? {
                if signal.signo == libc::SIGCHLD {
                    self.children = true;
                } else if !self.signals.contains(&signal.signo) {
                    self.signals.push_back(signal.signo);
                }
            }
            ready.clear_ready();
        }
    }
}
