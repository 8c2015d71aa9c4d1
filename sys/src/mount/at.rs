//! Where a mount goes: the root file system's folder and a path beneath it, held by descriptor,
//! so that no symlink planted in the root file system leads a mount out of it.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// openat2(2) asks to be called again when a rename elsewhere raced with a lookup in a root.
const LOOKUP_ATTEMPTS: usize = 64;

/// An open place to mount on, and the way to find it again.
pub(super) struct Place {
    rootfs: PathBuf,
    below: PathBuf,
    fd: OwnedFd,
    mount_id: u64,
}

impl Place {
    /// Opens `target` (a path below `rootfs`, empty for `rootfs` itself), creating what is
    /// missing: the last folder of `rootfs` with mode 0711, those beneath with 0755.
    ///
    /// Symlinks beneath are followed as a process with its root at `rootfs` would follow them.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` when `rootfs` is a symlink or no folder, `InvalidInput` for `..` in the target.
    pub(super) fn open(rootfs: &Path, target: &str) -> io::Result<Self> {
        // Going through the components drops a trailing slash, which would make the kernel
        // follow a symlink in spite of O_NOFOLLOW.
        let rootfs: PathBuf = rootfs.components().collect();
        let below = relative(target)?;
        let root = match open_folder(&rootfs) {
            Err(Errno::ENOENT) => {
                DirBuilder::new().mode(0o711).create(&rootfs)?;
                open_folder(&rootfs)?
            }
            other => other?,
        };
        let fd = if below.as_os_str().is_empty() {
            root
        } else {
            match open_in_root(root.as_fd(), &below) {
                Err(Errno::ENOENT) => create_in_root(root, &below)?,
                other => other?,
            }
        };
        let mount_id = mount_id(fd.as_fd())?;
        Ok(Self {
            rootfs,
            below,
            fd,
            mount_id,
        })
    }

    /// A path that means exactly this place to the kernel, whatever happens to names meanwhile.
    pub(super) fn path(&self) -> PathBuf {
        fd_path(self.fd.as_fd())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The mount that mount(2) has just put here. The old descriptor still means the folder
    /// underneath, so the place is looked up again; finding the same mount as before means that
    /// somebody moved names about, and is an error.
    pub(super) fn mounted(&self) -> io::Result<OwnedFd> {
        let root = open_folder(&self.rootfs)?;
        let fd = if self.below.as_os_str().is_empty() {
            root
        } else {
            open_in_root(root.as_fd(), &self.below)?
        };
        if mount_id(fd.as_fd())? == self.mount_id {
            return Err(io::Error::other(
                "the target changed while it was mounted on",
            ));
        }
        Ok(fd)
    }
}

/// `/proc/self/fd/N`: leads to the open file itself, not through its name.
pub(super) fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Opens the folder `path`, whose last component must not be a symlink.
pub(super) fn open_folder(path: &Path) -> nix::Result<OwnedFd> {
    open_component(AT_FDCWD, path.as_os_str())
}

/// Goes down from `start` by `below`, through mounts but never through a symlink.
pub(super) fn walk(start: OwnedFd, below: &Path) -> nix::Result<OwnedFd> {
    below
        .components()
        .try_fold(start, |folder, component| match component {
            Component::Normal(name) => open_component(folder.as_fd(), name),
            _ => Err(Errno::EINVAL),
        })
}

fn open_component(folder: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder, name, flags, Mode::empty())
}

/// `target` without leading slashes and dots.
fn relative(target: &str) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("the target {target:?} contains '..'"),
                ));
            }
        }
    }
    Ok(path)
}

/// Looks `path` up as if `root` were the root of the process. Kernels before 5.6 lack openat2(2):
/// there no symlink at all is followed.
fn open_in_root(root: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 0..LOOKUP_ATTEMPTS {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => {}
            Err(Errno::ENOSYS) => {
                let start = open_component(root, OsStr::new("."))?;
                return walk(start, path);
            }
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Creates the missing folders of `path`. Each is made in a folder that was itself looked up
/// within the root, so none can come to stand outside.
fn create_in_root(root: OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let start = open_component(root.as_fd(), OsStr::new("."))?;
    let mut folder = start;
    let mut so_far = PathBuf::new();
    for name in path.components() {
        so_far.push(name);
        folder = match open_in_root(root.as_fd(), &so_far) {
            Err(Errno::ENOENT) => {
                match mkdirat(&folder, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error),
                }
                open_in_root(root.as_fd(), &so_far)?
            }
            other => other?,
        };
    }
    Ok(folder)
}

/// The id of the mount a descriptor is on, by /proc/self/fdinfo (statx(2) tells it only from 5.8).
fn mount_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no mnt_id in /proc/self/fdinfo"))
}
