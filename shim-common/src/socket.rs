//! A shim's socket: what it is called, who makes it, when it may be removed (shim-contract
//! section 1.5).

use std::fmt;
use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use task_api::bootstrap::ADDRESS_SCHEME;

/// The longest path of a socket, in bytes (unix(7): 108 with the closing NUL).
pub const PATH_LIMIT: usize = 107;
/// How long a probe waits for a listener whose queue is full.
const PROBE_TIMEOUT: Duration = Duration::from_millis(100);

/// What to do with a socket file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Connect to it: a live one belongs to the group's shim, a dead one is removed.
    Probe,
    /// Remove it (the v1 flavour, whose shims are never shared).
    Remove,
}

/// What came out of [`bind`].
#[derive(Debug)]
pub enum Bound {
    /// A new socket, ours to serve on.
    New(OwnedFd),
    /// A live shim has it already.
    Served,
}

/// Why there is no socket.
#[derive(Debug)]
pub enum SocketError {
    /// The path does not fit into a socket address.
    TooLong(PathBuf),
    /// The folder is not a place to put a socket into.
    Folder(PathBuf, String),
    /// A system call failed; the text of the error names the path.
    Io(&'static str, PathBuf, io::Error),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(path) => write!(
                f,
                "socket path {} has {} bytes, more than the {PATH_LIMIT} that a unix socket can have",
                path.display(),
                path.as_os_str().len()
            ),
            Self::Folder(path, fault) => write!(f, "socket folder {} {fault}", path.display()),
            Self::Io(what, path, error) => write!(f, "{what} {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for SocketError {}

/// The path of the socket, in `dir`, of the shim that serves `group` of `namespace` for the
/// containerd at `grpc_address`. The name is the SHA-256 of the three joined as Go joins paths,
/// since `ctr shim` computes it again.
pub fn path(dir: &Path, grpc_address: &str, namespace: &str, group: &str) -> PathBuf {
    let digest = Sha256::digest(join(&[grpc_address, namespace, group]).as_bytes());
    let mut name = String::with_capacity(64);
    for byte in digest {
        for digit in [byte >> 4, byte & 15] {
            name.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    dir.join(name)
}

/// The address of a socket: its path with the scheme in front.
pub fn address(path: &Path) -> String {
    format!("{ADDRESS_SCHEME}{}", path.display())
}

/// The path in an address; `None` for one that is not that of a socket file (abstract sockets of
/// old shims, vsock).
pub fn path_of(address: &str) -> Option<&Path> {
    let path = Path::new(address.trim().strip_prefix(ADDRESS_SCHEME)?);
    path.is_absolute().then_some(path)
}

/// Joins elements as Go's `filepath.Join`: empty ones are skipped, then `.`, `..` and repeated
/// slashes are resolved in the text. `..` at the root is dropped, and nothing at all is empty.
fn join(elements: &[&str]) -> String {
    let joined = elements
        .iter()
        .copied()
        .filter(|e| !e.is_empty())
        .collect::<Vec<_>>()
        .join("/");
    if joined.is_empty() {
        return joined;
    }
    let rooted = joined.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let clean = parts.join("/");
    match (rooted, clean.is_empty()) {
        (true, _) => format!("/{clean}"),
        (false, true) => ".".to_owned(),
        (false, false) => clean,
    }
}

/// Makes the socket at `path` (mode 0600, in a folder of 0700) and listens on it, or finds that a
/// live shim does.
///
/// The folder is locked meanwhile: of two starts that meet a dead socket, the second must not
/// remove what the first has just made.
///
/// # Errors
/// A path too long; a folder that is a link, belongs to another user or can be written by
/// others; failures of the system calls.
pub fn bind(path: &Path, existing: Existing) -> Result<Bound, SocketError> {
    let dir = parent(path)?;
    make_folder(dir)?;
    let _lock = lock(dir)?;
    let listen = || sys::socket::listen_unix(path, 0o600);
    match listen() {
        Ok(socket) => return Ok(Bound::New(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return Err(SocketError::Io("make socket", path.to_owned(), error)),
    }
    if existing == Existing::Probe && is_served(path) {
        return Ok(Bound::Served);
    }
    remove_file(path)?;
    listen()
        .map(Bound::New)
        .map_err(|error| SocketError::Io("make socket", path.to_owned(), error))
}

/// Removes the socket at `path` unless something listens on it. Says whether it was removed.
///
/// # Errors
/// Something else than a socket is there; failures of the system calls.
pub fn remove_dead(path: &Path) -> Result<bool, SocketError> {
    let dir = parent(path)?;
    let is_socket = match path.symlink_metadata() {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(SocketError::Io("look at", path.to_owned(), error)),
    };
    if !is_socket {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a socket");
        return Err(SocketError::Io("remove", path.to_owned(), error));
    }
    check_folder(dir, &metadata(dir)?)?;
    let _lock = lock(dir)?;
    if is_served(path) {
        return Ok(false);
    }
    remove_file(path)?;
    Ok(true)
}

/// Whether a process listens at `path`. A listener whose queue stays full counts as one.
pub fn is_served(path: &Path) -> bool {
    match sys::socket::connect_unix_timeout(path, PROBE_TIMEOUT) {
        Ok(_) => true,
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
        ),
    }
}

fn parent(path: &Path) -> Result<&Path, SocketError> {
    if path.as_os_str().as_bytes().len() > PATH_LIMIT {
        return Err(SocketError::TooLong(path.to_owned()));
    }
    match path.parent() {
        Some(dir) if dir.is_absolute() => Ok(dir),
        _ => Err(SocketError::Folder(
            path.to_owned(),
            "is not an absolute path".to_owned(),
        )),
    }
}

fn metadata(dir: &Path) -> Result<Metadata, SocketError> {
    dir.symlink_metadata()
        .map_err(|error| SocketError::Io("look at", dir.to_owned(), error))
}

fn make_folder(dir: &Path) -> Result<(), SocketError> {
    let told = |error| SocketError::Io("make folder", dir.to_owned(), error);
    let found = match dir.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(told)?;
            metadata(dir)?
        }
        Err(error) => return Err(told(error)),
    };
    check_folder(dir, &found)
}

/// Whoever may write to the folder could put a socket of his own in the place of a shim's.
fn check_folder(dir: &Path, found: &Metadata) -> Result<(), SocketError> {
    let fault = if found.file_type().is_symlink() {
        "is a symbolic link".to_owned()
    } else if !found.is_dir() {
        "is not a folder".to_owned()
    } else if found.uid() != sys::process::euid() {
        format!(
            "belongs to user {}, not to {}",
            found.uid(),
            sys::process::euid()
        )
    } else if found.mode() & 0o022 != 0 {
        format!(
            "can be written by others (mode {:o})",
            found.mode() & 0o7777
        )
    } else {
        return Ok(());
    };
    Err(SocketError::Folder(dir.to_owned(), fault))
}

fn lock(dir: &Path) -> Result<File, SocketError> {
    let lock = || {
        let file = File::open(dir)?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(|error| SocketError::Io("lock", dir.to_owned(), error))
}

/// Removes a file that may be gone already.
pub fn remove_file(path: &Path) -> Result<(), SocketError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SocketError::Io("remove", path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::Builder::new().prefix("w").tempdir().unwrap();
        let path = dir.path().join("s/x");
        (dir, path)
    }

    #[test]
    fn the_name_is_the_one_that_go_computes() {
        // Printed by containerd 1.6.20's shim for namespace x, an empty id and no address.
        let got = path(Path::new("/run/containerd/s"), "", "x", "");
        let name = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        assert_eq!(got, Path::new("/run/containerd/s").join(name));
        assert_eq!(path_of(&address(&got)), Some(got.as_path()));
        assert_eq!(path_of("\0/containerd-shim/ns/id/shim.sock"), None);
        assert_eq!(path_of("unix://relative"), None);
    }

    #[test]
    fn paths_are_joined_as_go_joins_them() {
        for (elements, joined) in [
            (["", "", ""], ""),
            (["/run/c.sock", "ns", "id"], "/run/c.sock/ns/id"),
            (["/run//c.sock/", "/ns/", "./id"], "/run/c.sock/ns/id"),
            (["a", "..", "b"], "b"),
            (["a", "..", ".."], ".."),
            (["a", "..", ""], "."),
            (["/a", "../..", "b"], "/b"),
            (["..", "..", "a"], "../../a"),
            (["", "x", ""], "x"),
            (["/", "", ""], "/"),
        ] {
            assert_eq!(join(&elements), joined, "{elements:?}");
        }
    }

    #[test]
    fn a_new_socket_is_for_its_owner_alone() {
        let (_dir, path) = folder();
        let Bound::New(_socket) = bind(&path, Existing::Probe).unwrap() else {
            panic!("served")
        };
        let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn a_live_socket_is_found_and_kept_and_a_dead_one_replaced() {
        let (_dir, path) = folder();
        let Bound::New(live) = bind(&path, Existing::Probe).unwrap() else {
            panic!("served")
        };
        assert!(matches!(
            bind(&path, Existing::Probe).unwrap(),
            Bound::Served
        ));
        assert!(!remove_dead(&path).unwrap());
        drop(live);
        assert!(!is_served(&path));
        let Bound::New(live) = bind(&path, Existing::Probe).unwrap() else {
            panic!("served")
        };
        // The v1 flavour takes even a live one.
        assert!(matches!(
            bind(&path, Existing::Remove).unwrap(),
            Bound::New(_)
        ));
        drop(live);
        assert!(remove_dead(&path).unwrap());
        assert!(!remove_dead(&path).unwrap());
    }

    #[test]
    fn a_folder_open_to_others_is_refused() {
        let (dir, path) = folder();
        let s = dir.path().join("s");
        std::os::unix::fs::symlink(dir.path(), &s).unwrap();
        let refused = |text: &str| {
            let error = bind(&path, Existing::Probe).unwrap_err().to_string();
            assert!(
                error.contains(text) && error.contains(s.to_str().unwrap()),
                "{error}"
            );
        };
        refused("is a symbolic link");
        std::fs::remove_file(&s).unwrap();
        std::fs::write(&s, "").unwrap();
        refused("is not a folder");
        std::fs::remove_file(&s).unwrap();
        std::fs::create_dir(&s).unwrap();
        std::fs::set_permissions(&s, std::fs::Permissions::from_mode(0o777)).unwrap();
        refused("can be written by others (mode 777)");
    }

    #[test]
    fn a_long_path_is_refused_by_name() {
        let dir = PathBuf::from(format!("/{}", "d".repeat(50)));
        let error = bind(&path(&dir, "", "n", "i"), Existing::Probe)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("has 116 bytes") && error.contains("/dddd"),
            "{error}"
        );
        assert!(!dir.exists());
    }

    #[test]
    fn only_a_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("precious");
        std::fs::write(&file, "x").unwrap();
        assert!(
            remove_dead(&file)
                .unwrap_err()
                .to_string()
                .contains("not a socket")
        );
        assert!(file.exists());
    }

    proptest! {
        #[test]
        fn a_joined_path_is_clean(elements in prop::array::uniform3("[a./]{0,6}")) {
            let joined = join(&elements.each_ref().map(String::as_str));
            prop_assert!(!joined.contains("//"));
            prop_assert_eq!(join(&[&joined, "", ""]), joined);
        }
    }
}
