//! The socket by which the runtime hands over the master of a container's terminal.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watched::watch;

/// The longest path a Unix socket can have, its final NUL not counted (unix(7)).
const LONGEST_PATH: usize = 107;

/// The socket's name in its folder.
const SOCKET: &str = "pty.sock";

/// A listening socket in a folder of its own; both go when this is dropped. Its path is what the
/// runtime gets as `--console-socket`.
pub struct ConsoleSocket {
    listener: AsyncFd<UnixListener>,
    folder: PathBuf,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Makes `pty<of the container>-<random>/pty.sock` below `runtime_dir`, which only this user can
    /// enter. A folder whose name is too long for a socket is passed over for /run, then /tmp.
    pub fn new(runtime_dir: &Path, namespace: &str, id: &str) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::InvalidFilename);
        let name = format!("{}{:016x}", prefix(namespace, id), random());
        for (folder, path) in places(runtime_dir, &name) {
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

/// Where a shim with this environment makes console sockets: `XDG_RUNTIME_DIR`, or /run.
pub fn runtime_dir(env: &[(OsString, OsString)]) -> PathBuf {
    env.iter()
        .find(|(name, value)| name == "XDG_RUNTIME_DIR" && !value.is_empty())
        .map_or_else(|| PathBuf::from("/run"), |(_, value)| PathBuf::from(value))
}

/// Removes the console sockets that a shim which was killed has left of a container.
///
/// # Errors
/// The folder of the sockets cannot be read.
pub fn remove_consoles(runtime_dir: &Path, namespace: &str, id: &str) -> io::Result<()> {
    let prefix = prefix(namespace, id);
    let longest = format!("{prefix}{:016x}", 0);
    let place = places(runtime_dir, &longest).next();
    let Some(base) = place.as_ref().and_then(|(folder, _)| folder.parent()) else {
        return Ok(());
    };
    let entries = match std::fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
            remove(&entry.path(), &entry.path().join(SOCKET));
        }
    }
    Ok(())
}

/// Where a folder of this name, and the socket in it, may be, the best place first.
fn places(runtime_dir: &Path, name: &str) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    [runtime_dir, Path::new("/run"), Path::new("/tmp")]
        .into_iter()
        .filter(|base| base.is_absolute())
        .map(move |base| (base.join(name), base.join(name).join(SOCKET)))
        .filter(|(_, path)| path.as_os_str().len() <= LONGEST_PATH)
}

/// How the names of a container's folders begin: another process must find them by its id.
fn prefix(namespace: &str, id: &str) -> String {
    let digest = Sha256::digest(format!("{namespace}/{id}").as_bytes());
    let mut text = "pty".to_owned();
    for byte in digest.iter().take(4) {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('-');
    text
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
