//! The socket by which the runtime hands over the master of a container's terminal.

use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watched::watch;

/// The longest path a Unix socket can have, its final NUL not counted (unix(7)).
const LONGEST_PATH: usize = 107;

/// A listening socket in a folder of its own; both go when this is dropped. Its path is what the
/// runtime gets as `--console-socket`.
pub struct ConsoleSocket {
    listener: AsyncFd<UnixListener>,
    folder: PathBuf,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Makes `pty<random>/pty.sock` below `runtime_dir`, which only this user can enter. A
    /// folder whose name is too long for a socket is passed over for /run, then /tmp.
    pub fn new(runtime_dir: &Path) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::InvalidFilename);
        for base in [runtime_dir, Path::new("/run"), Path::new("/tmp")] {
            let folder = base.join(format!("pty{:016x}", random()));
            let path = folder.join("pty.sock");
            if !base.is_absolute() || path.as_os_str().len() > LONGEST_PATH {
                continue;
            }
            // Never into a folder that is there already: somebody else's in /tmp.
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Self::listen(folder, path),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn listen(folder: PathBuf, path: PathBuf) -> io::Result<Self> {
        let listener = sys::socket::listen_unix(&path, 0o600).and_then(|socket| {
            sys::pipe::set_nonblocking(&socket, true)?;
            watch(UnixListener::from(socket), Interest::READABLE)
        });
        match listener {
            Ok(listener) => Ok(Self {
                listener,
                folder,
                path,
            }),
            Err(error) => {
                remove(&folder, &path);
                Err(error)
            }
        }
    }

    /// The path for `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the runtime to hand over the terminal's master; the caller bounds the wait.
    /// Whoever connects as another user, or closes without sending a descriptor, is turned away
    /// and the wait goes on. The socket is removed when this ends or is dropped.
    pub async fn receive(self) -> io::Result<Master> {
        loop {
            let (peer, _) = self
                .listener
                .async_io(Interest::READABLE, UnixListener::accept)
                .await?;
            let sender = sys::socket::peer_credentials(peer.as_fd())?;
            if sender.uid != sys::process::euid() {
                let (pid, uid) = (sender.pid, sender.uid);
                log::warn!("console socket: refused pid {pid} of uid {uid}");
                continue;
            }
            peer.set_nonblocking(true)?;
            let peer = watch(peer, Interest::READABLE)?;
            let received = peer
                .async_io(Interest::READABLE, |peer| {
                    sys::socket::receive_fd(peer.as_fd())
                })
                .await;
            match received {
                Ok(Some(master)) => return Ok(Master(master)),
                Ok(None) => {}
                Err(error) => log::warn!("console socket: {error}"),
            }
        }
    }
}

/// The master of a container's terminal, for [`super::Relay::attach`].
#[derive(Debug)]
pub struct Master(pub(super) OwnedFd);

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        remove(&self.folder, &self.path);
    }
}

fn remove(folder: &Path, path: &Path) {
    // Either may never have been made; nothing else can be in the folder.
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_dir(folder);
}

/// A number nobody can guess: the standard library seeds its hash keys from the kernel's random
/// source.
fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}
