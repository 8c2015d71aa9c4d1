//! FIFOs as containerd's clients hold them: the reading ends of output, the writing end of input.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use sha2::{Digest as _, Sha256};

use crate::wait::{eventually, eventually_some};

/// Makes a FIFO with mode 0700, as containerd's clients do.
pub fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o700))
        .unwrap_or_else(|e| panic!("mkfifo {}: {e}", path.display()));
}

/// An output FIFO with a reader that may stop, go on and go away.
#[derive(Debug)]
pub struct OutputFifo {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: Mutex<Vec<u8>>,
    digest: Mutex<Sha256>,
    total: AtomicU64,
    keep: AtomicBool,
    stopped: AtomicBool,
    gone: AtomicBool,
    ended: AtomicBool,
}

impl OutputFifo {
    /// Makes the FIFO without opening it: a client that is late.
    pub fn unread(path: &Path) -> Self {
        make_fifo(path);
        let shared = Shared {
            keep: AtomicBool::new(true),
            ..Shared::default()
        };
        Self {
            path: path.to_owned(),
            shared: Arc::new(shared),
        }
    }

    /// Makes the FIFO and reads it from now on.
    pub fn read(path: &Path) -> Self {
        let fifo = Self::unread(path);
        fifo.start_reading();
        fifo
    }

    /// Makes the FIFO and reads it for its length and checksum only.
    pub fn digest_only(path: &Path) -> Self {
        let fifo = Self::unread(path);
        fifo.shared.keep.store(false, Ordering::Relaxed);
        fifo.start_reading();
        fifo
    }

    /// Opens the reading end and reads in a thread until the last writer is gone.
    pub fn start_reading(&self) {
        let file = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&self.path)
            .expect("open the FIFO for reading");
        self.shared.gone.store(false, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || pump(file, &shared));
    }

    /// Stops reading while the reading end stays open: a client that is stuck.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    /// Goes on after [`Self::stop`].
    pub fn go_on(&self) {
        self.shared.stopped.store(false, Ordering::Relaxed);
    }

    /// Closes the reading end: a client that is gone.
    pub fn close(&self) {
        self.shared.gone.store(true, Ordering::Relaxed);
    }

    /// The FIFO's path, for requests.
    pub fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// What arrived so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.bytes.lock().unwrap()).into_owned()
    }

    /// How many bytes arrived so far.
    pub fn total(&self) -> u64 {
        self.shared.total.load(Ordering::Relaxed)
    }

    /// The SHA-256 of what arrived so far, in hex.
    pub fn sha256(&self) -> String {
        let digest = self.shared.digest.lock().unwrap().clone().finalize();
        hex(&digest)
    }

    /// Whether the last writer is gone and everything was read.
    pub fn ended(&self) -> bool {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Waits for the end of file.
    #[track_caller]
    pub fn wait_end(&self, deadline: Duration) {
        eventually(deadline, &format!("end of file on {}", self.path()), || {
            self.ended()
        });
    }

    /// Waits until `text` has arrived.
    #[track_caller]
    pub fn wait_text(&self, deadline: Duration, text: &str) {
        let what = format!("{text:?} on {}", self.path());
        eventually(deadline, &what, || self.text().contains(text));
    }
}

impl Drop for OutputFifo {
    fn drop(&mut self) {
        self.close();
    }
}

fn pump(mut file: File, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if shared.gone.load(Ordering::Relaxed) {
            return;
        }
        if shared.stopped.load(Ordering::Relaxed) {
            // No event tells that a test wants more: look again after a moment.
            crate::wait::holds(Duration::from_millis(20), || {
                !shared.stopped.load(Ordering::Relaxed)
            });
            continue;
        }
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(50u8)).is_err() {
            continue;
        }
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        // A FIFO that never had a writer shows no event; one that lost its last shows a hang-up.
        if !events.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
            continue;
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                if shared.keep.load(Ordering::Relaxed) {
                    shared.bytes.lock().unwrap().extend_from_slice(&buffer[..n]);
                }
                shared.digest.lock().unwrap().update(&buffer[..n]);
                shared.total.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    shared.ended.store(true, Ordering::Relaxed);
}

/// An input FIFO; the client opens its writing end once the shim reads.
#[derive(Debug)]
pub struct InputFifo {
    path: PathBuf,
    file: Option<File>,
}

impl InputFifo {
    /// Makes the FIFO, not yet opened.
    pub fn new(path: &Path) -> Self {
        make_fifo(path);
        Self {
            path: path.to_owned(),
            file: None,
        }
    }

    /// The FIFO's path, for requests.
    pub fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// Opens the writing end as soon as somebody reads.
    #[track_caller]
    pub fn open(&mut self) {
        let what = format!("a reader of {}", self.path.display());
        let file = eventually_some(crate::wait::SHORT, &what, || {
            File::options()
                .write(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(&self.path)
                .ok()
        });
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).expect("make the writing end block");
        self.file = Some(file);
    }

    /// Writes all of `text`.
    pub fn write(&mut self, text: &str) {
        let file = self.file.as_mut().expect("opened before written");
        file.write_all(text.as_bytes()).expect("write stdin");
    }

    /// Closes the writing end.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Takes the writing end, for a test with ends of its own.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.file.take().map(OwnedFd::from)
    }
}

/// Lower-case hex of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
