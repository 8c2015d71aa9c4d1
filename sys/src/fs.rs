//! Opening and writing files where a container may have planted something: path resolution that
//! the kernel fences (openat2(2), Linux 5.6), and files that appear whole or not at all.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

use crate::errno::context;

/// Opens `path`, relative to the folder `directory`, with `flags` (libc's `O_` numbers;
/// close-on-exec is added). `mode` counts with `O_CREAT` only.
///
/// No component may be a symlink, and none may lead out of `directory`: ELOOP or EXDEV (no
/// `ErrorKind` of their own), whoever planted it and whenever.
pub fn open_beneath(
    directory: impl AsFd,
    path: &Path,
    flags: i32,
    mode: u32,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open_fenced(directory, path, flags, mode, resolve)
}

/// Opens `path` below the folder `directory`, following symlinks that stay there. An absolute
/// symlink and one that leads out are EXDEV, those of /proc to open files ELOOP.
pub fn open_staying_beneath(directory: impl AsFd, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new()
        .flags(OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC)
        .resolve(resolve);
    for _ in 0..100 {
        match openat2(&directory, path, how) {
            Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
            result => return Ok(result?),
        }
    }
    Err(nix::Error::EAGAIN.into())
}

/// Opens `path` as a process sees it whose root folder is `root`: symlinks are followed, an
/// absolute one and `..` stay inside, and those of /proc to open files are refused. Leading
/// slashes mean `root`.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open_fenced(root, path, flags, mode, resolve)
}

/// Opens an existing `path`, of which no component is a symlink (ELOOP otherwise). For paths below folders of
/// ours: a system's own symlink such as /var/run is refused as well.
pub fn open_no_symlinks(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    open_fenced(AT_FDCWD, path, flags, 0, ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn open_fenced(
    directory: impl AsFd,
    path: &Path,
    flags: i32,
    mode: u32,
    resolve: ResolveFlag,
) -> io::Result<OwnedFd> {
    // The kernel refuses a mode without O_CREAT or O_TMPFILE.
    let creates = flags & (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) != 0;
    let mode = if creates {
        Mode::from_bits_retain(mode)
    } else {
        Mode::empty()
    };
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).mode(mode).resolve(resolve);
    // EAGAIN says that a rename or mount elsewhere made the kernel unsure about a `..`.
    for _ in 0..100 {
        match openat2(&directory, path, how) {
            Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
            result => return result.map_err(|errno| told(errno, path)),
        }
    }
    Err(told(nix::Error::EAGAIN, path))
}

/// Adds the path to the message and keeps the kind. A system error without a kind of its own
/// (ELOOP, EXDEV) stays recognisable by [`io::Error::kind`] only as far as Rust knows it.
fn told(errno: nix::Error, path: &Path) -> io::Error {
    context(&errno.into(), format_args!("open {}", path.display()))
}

/// Makes the folder `path`, relative to the folder `root`, with all that lead to it, as far as
/// they do not exist, and opens it (`O_PATH`). New folders get `mode` less the umask.
///
/// A component that is a symlink or no folder is an error, and so is `..`: nothing is made
/// outside of `root`, whatever is planted meanwhile.
pub fn mkdir_all_beneath(root: impl AsFd, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut folder = open_beneath(root, Path::new("."), flags, 0)?;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => Path::new(name),
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("make folders {}: \"..\" in the path", path.display()),
                ));
            }
        };
        match mkdirat(&folder, name, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(errno) => {
                let what = format!("make folder {} of {}", name.display(), path.display());
                return Err(context(&errno.into(), what));
            }
        }
        folder = open_beneath(&folder, name, flags, 0)
            .map_err(|error| context(&error, format_args!("make folders {}", path.display())))?;
    }
    Ok(folder)
}

/// Makes every temporary name of this process another one.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Writes a file so that a reader sees the old contents or the new, whole: a temporary file in
/// the same folder is renamed over `path`. A symlink at `path` is replaced, not followed. The
/// file gets exactly `mode`, whatever the umask. Nothing is forced to the disk (bundles live in
/// /run). When it fails, a full disk for instance, the temporary file is removed.
pub fn write_file_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let told = |error: io::Error| context(&error, format_args!("write {}", path.display()));
    let temporary = temporary_name(path)?;
    // What a killed process with our pid left; nobody else has this name.
    remove_if_exists(&temporary).map_err(told)?;
    let result =
        write_new(&temporary, bytes, mode).and_then(|()| std::fs::rename(&temporary, path));
    result.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        told(error)
    })
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no file name in {}", path.display()),
        )
    })?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let name = format!(".{}.{}-{serial}.tmp", name.display(), std::process::id());
    Ok(path.with_file_name(name))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // O_EXCL follows no symlink. The file has at most `mode` from its first moment on.
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    file.write_all(bytes)
}

/// Removes a file; one that does not exist is fine.
pub fn remove_if_exists(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Reads a regular file of at most `limit` bytes. The last component may not be a symlink; a
/// FIFO, device or the like is `InvalidInput` and never waited for; a longer file is
/// `FileTooLarge`.
pub fn read_file(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let told = |error: io::Error| context(&error, format_args!("read {}", path.display()));
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(told)?;
    if !file.metadata().map_err(told)?.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(told(error));
    }
    let mut bytes = Vec::new();
    file.take((limit as u64).saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(told)?;
    if bytes.len() > limit {
        let error = format!("longer than {limit} bytes");
        return Err(told(io::Error::new(io::ErrorKind::FileTooLarge, error)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder_with_escapes() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("in/side")).unwrap();
        std::fs::write(root.join("in/file"), "inside").unwrap();
        std::fs::write(folder.path().join("secret"), "outside").unwrap();
        symlink(folder.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../secret", root.join("relative")).unwrap();
        symlink("in", root.join("harmless")).unwrap();
        symlink("/in/file", root.join("rooted")).unwrap();
        symlink(folder.path(), root.join("folder")).unwrap();
        let handle = File::open(&root).unwrap();
        (folder, handle)
    }

    fn text(fd: OwnedFd) -> String {
        io::read_to_string(File::from(fd)).unwrap()
    }

    #[test]
    fn beneath_follows_nothing_and_stays_inside() {
        let (_folder, root) = folder_with_escapes();
        let open = |path: &str| open_beneath(&root, Path::new(path), libc::O_RDONLY, 0);
        assert_eq!(text(open("in/file").unwrap()), "inside");
        for path in [
            "absolute",
            "relative",
            "harmless/file",
            "../secret",
            "/etc/passwd",
            "in/../../secret",
        ] {
            open(path).expect_err(path);
        }
        let flags = libc::O_WRONLY | libc::O_CREAT;
        open_beneath(&root, Path::new("in/new"), flags, 0o600).unwrap();
        open_beneath(&root, Path::new("relative"), flags, 0o600).unwrap_err();
    }

    #[test]
    fn in_root_resolves_as_the_container_would() {
        let (_folder, root) = folder_with_escapes();
        let open = |path: &str| open_in_root(&root, Path::new(path), libc::O_RDONLY, 0);
        assert_eq!(text(open("harmless/file").unwrap()), "inside");
        assert_eq!(text(open("/rooted").unwrap()), "inside");
        assert_eq!(text(open("../../in/file").unwrap()), "inside");
        for path in ["absolute", "relative", "/etc/passwd"] {
            assert_eq!(
                open(path).unwrap_err().kind(),
                io::ErrorKind::NotFound,
                "{path}"
            );
        }
    }

    #[test]
    fn no_symlinks_anywhere_in_the_path() {
        let (folder, _root) = folder_with_escapes();
        let real = std::fs::canonicalize(folder.path()).unwrap().join("root");
        assert_eq!(
            text(open_no_symlinks(&real.join("in/file"), libc::O_RDONLY).unwrap()),
            "inside"
        );
        let error = open_no_symlinks(&real.join("harmless/file"), libc::O_RDONLY).unwrap_err();
        assert!(error.to_string().contains("harmless/file"), "{error}");
        open_no_symlinks(&real.join("relative"), libc::O_RDONLY).unwrap_err();
    }

    #[test]
    fn folders_are_made_inside_only() {
        let (folder, root) = folder_with_escapes();
        let made = mkdir_all_beneath(&root, Path::new("/in/a/b/c"), 0o711).unwrap();
        let metadata = File::from(made).metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o711);
        assert!(folder.path().join("root/in/a/b/c").is_dir());
        mkdir_all_beneath(&root, Path::new("in/a/b/c"), 0o711).unwrap();
        for path in ["folder/x", "harmless/x", "../x", "in/../../x", "in/file/x"] {
            mkdir_all_beneath(&root, Path::new(path), 0o711).expect_err(path);
        }
        assert!(!folder.path().join("x").exists());
        assert!(!folder.path().join("root/in/x").exists());
    }

    #[test]
    fn an_atomic_write_replaces_whole_and_leaves_no_rest() {
        let (folder, _root) = folder_with_escapes();
        let path = folder.path().join("address");
        write_file_atomic(&path, b"one", 0o666).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o666
        );
        write_file_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // A planted symlink is replaced, and what it points to stays.
        let planted = folder.path().join("root/absolute");
        write_file_atomic(&planted, b"three", 0o600).unwrap();
        assert_eq!(
            std::fs::read(folder.path().join("secret")).unwrap(),
            b"outside"
        );
        assert!(planted.symlink_metadata().unwrap().is_file());
        // A failure removes the temporary file and names the path.
        let error = write_file_atomic(&folder.path().join("root"), b"x", 0o600).unwrap_err();
        assert!(error.to_string().contains("/root"), "{error}");
        let error = write_file_atomic(&folder.path().join("none/file"), b"x", 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(
                !name.display().to_string().ends_with(".tmp"),
                "{}",
                name.display()
            );
        }
    }

    #[test]
    fn reading_is_bounded_and_wants_a_file() {
        let (folder, _root) = folder_with_escapes();
        let path = folder.path().join("secret");
        assert_eq!(read_file(&path, 7).unwrap(), b"outside");
        assert_eq!(
            read_file(&path, 6).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        read_file(&folder.path().join("root/absolute"), 100).unwrap_err();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        assert_eq!(
            read_file(&fifo, 100).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            read_file(&folder.path().join("no"), 1).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        remove_if_exists(&path).unwrap();
        remove_if_exists(&path).unwrap();
    }
}
