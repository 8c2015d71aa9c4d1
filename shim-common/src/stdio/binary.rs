//! A logger program that reads the container's output itself.
//!
//! It gets the read ends of the two pipes as descriptors 3 and 4 and the write end of its ready
//! pipe as 5 (shim-contract section 2). The shim keeps no end of the output pipes, so the logger
//! sees the end of file when the container's last writer is gone, not at Delete; and it watches
//! the logger, so that one that dies is said (containerd #12490).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use sys::spawn::Spawn;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::StdioError;
use super::stream::{Ending, Stream};
use super::uri::Binary;
use super::watched::{watch, watch_pipe};

/// How long a logger may take to say that it is ready.
const READY: Duration = Duration::from_secs(10);
/// How long a logger whose container is gone may take to end by itself at the end of file.
const OWN_END: Duration = Duration::from_secs(1);
/// How long after SIGTERM comes SIGKILL, as in Go.
const TERM: Duration = Duration::from_secs(12);

/// A started logger.
pub(super) struct Logger {
    program: PathBuf,
    pid: i32,
    container: String,
    pidfd: AsyncFd<OwnedFd>,
}

/// Starts the logger and waits until it is ready. A logger that is not is killed.
pub(super) async fn start(
    binary: Binary,
    container_id: &str,
    namespace: &str,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<Logger, StdioError> {
    start_within(READY, binary, container_id, namespace, stdout, stderr).await
}

pub(super) async fn start_within(
    limit: Duration,
    binary: Binary,
    container_id: &str,
    namespace: &str,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<Logger, StdioError> {
    let Binary {
        program,
        args,
        needs_byte,
    } = binary;
    let failed = |what: String| StdioError::Logger {
        program: program.clone(),
        what,
    };
    let (ready, ready_writer) = sys::pipe::pipe().map_err(StdioError::Pipe)?;
    let ready = watch_pipe(ready, Interest::READABLE).map_err(StdioError::Pipe)?;
    let mut spawn = Spawn::new(&program);
    spawn.args.extend(args);
    spawn.env = [
        ("CONTAINER_ID", container_id),
        ("CONTAINER_NAMESPACE", namespace),
    ]
    .map(|(name, value)| (OsString::from(name), OsString::from(value)))
    .into();
    spawn.extra_fds = vec![(stdout, 3), (stderr, 4), (ready_writer, 5)];
    // It has to outlive this shim, should the shim die: the container goes on writing.
    spawn.parent_death_signal = None;
    let child = spawn.spawn().map_err(|error| failed(error.to_string()))?;
    let logger = Logger {
        pid: child.pid,
        container: container_id.to_owned(),
        pidfd: watch(child.pidfd, Interest::READABLE).map_err(StdioError::Pipe)?,
        program: program.clone(),
    };
    let answer = ready.async_io(Interest::READABLE, |mut ready: &File| ready.read(&mut [0]));
    let what = match timeout(limit, answer).await {
        Ok(Ok(0)) if needs_byte => "ended its ready pipe without a word".to_owned(),
        Ok(Ok(_)) => return Ok(logger),
        Ok(Err(error)) => format!("its ready pipe fails: {error}"),
        Err(_) => format!("is not ready after {} s", limit.as_secs_f32()),
    };
    logger.signal(libc::SIGKILL);
    Err(failed(what))
}

impl Logger {
    /// Waits until the logger has ended, and says so when it should not have: the container
    /// would get EPIPE or SIGPIPE from its next write.
    pub(super) async fn watch(self: Rc<Self>, stream: Rc<Stream>, expected: impl Fn() -> bool) {
        let ending = Ending(stream);
        match self.ended().await {
            Ok(()) if expected() => log::debug!("{self} has ended"),
            Ok(()) => log::error!("{self} has ended while its container runs"),
            Err(error) => log::error!("{self} cannot be watched: {error}"),
        }
        drop(ending);
    }

    async fn ended(&self) -> io::Result<()> {
        // A pidfd stays readable, so the state need not be cleared.
        self.pidfd.readable().await.map(|_| ())
    }

    fn signal(&self, signal: i32) {
        if let Err(error) = sys::pidfd::send_signal(self.pidfd.get_ref().as_fd(), signal)
            && !sys::pidfd::is_gone(&error)
        {
            log::warn!("{self}: signal {signal}: {error}");
        }
    }
}

/// A logger that is to end. Dropped before it has, with the shim itself, it asks it to.
pub(super) struct Stopping(pub(super) Rc<Logger>);

impl Stopping {
    /// Ends the logger: it may do so itself at the end of file, then it is asked, then killed.
    pub(super) async fn stop(self) {
        let logger = &self.0;
        for (signal, wait) in [(libc::SIGTERM, OWN_END), (libc::SIGKILL, TERM)] {
            if timeout(wait, logger.ended()).await.is_ok() {
                return;
            }
            log::warn!("{logger} does not end; signal {signal}");
            logger.signal(signal);
        }
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        // One that has ended takes no notice.
        self.0.signal(libc::SIGTERM);
    }
}

impl std::fmt::Display for Logger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (program, pid, container) = (self.program.display(), self.pid, &self.container);
        write!(f, "logger {program} (pid {pid}) of {container}")
    }
}
