//! Finding the folder of an entry, through symlinks of the layer itself, and never outside.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{Mode, mkdirat};

use super::fault::Fault;

/// How many symlinks one path may go through; the kernel's number.
const LINKS: usize = 40;
/// How many names one path may come to, with those of the symlinks in it. A path that is longer
/// cannot be opened by anybody, and following it would take as long as its writer likes.
const STEPS: usize = 4096;

/// How an entry's folder is opened.
const FOLDER: i32 = libc::O_PATH | libc::O_DIRECTORY;
/// How a part of a path is looked at.
const LOOK: i32 = libc::O_PATH | libc::O_NOFOLLOW;

/// What is done about a folder on the way that is not there.
pub(super) trait Missing {
    /// It was made, `folder` is open on it, and it is at `path` below the target.
    fn made(&mut self, folder: &OwnedFd, path: &Path) -> Result<(), Fault>;
}

/// Opens the folder `path`, a clean path below the target `root`. With `missing`, what is not
/// there of it is made.
///
/// # Errors
/// Refuses what leads out of the target, and what is no folder.
pub(super) fn folder(
    root: &OwnedFd,
    path: &Path,
    missing: Option<&mut dyn Missing>,
) -> Result<OwnedFd, Fault> {
    let at = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    // Nearly always the kernel finds it at once.
    match sys::fs::open_staying_beneath(root, at, FOLDER) {
        Ok(folder) => Ok(folder),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::EXDEV | libc::ELOOP) => {
                Walk::new(root)?.walk(path, missing)
            }
            _ => Err(Fault::io(path.display(), error)),
        },
    }
}

/// Step by step: absolute symlinks begin at the target, as they will in a container.
struct Walk<'a> {
    root: &'a OwnedFd,
    /// Where it is by now, without symlinks.
    resolved: PathBuf,
    current: OwnedFd,
    links: usize,
    steps: usize,
}

impl<'a> Walk<'a> {
    fn new(root: &'a OwnedFd) -> Result<Self, Fault> {
        Ok(Self {
            root,
            resolved: PathBuf::new(),
            current: root
                .try_clone()
                .map_err(|error| Fault::io("target", error))?,
            links: 0,
            steps: 0,
        })
    }

    fn walk(
        mut self,
        path: &Path,
        mut missing: Option<&mut dyn Missing>,
    ) -> Result<OwnedFd, Fault> {
        let refused = |what: &str| Fault::layer(path.as_os_str().as_bytes(), what);
        // What is still to go, the next part last.
        let mut ahead: Vec<OsString> = parts(path);
        while let Some(name) = ahead.pop() {
            self.steps += 1;
            if self.steps > STEPS {
                return Err(refused("goes through too long a chain of symlinks"));
            }
            if name == ".." {
                if !self.resolved.pop() {
                    return Err(refused("leads out of the layer through a symlink"));
                }
                self.current = self.reopen()?;
                continue;
            }
            let found = sys::fs::open_beneath(&self.current, Path::new(&name), LOOK, 0);
            let next = match found {
                Ok(next) => File::from(next),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let Some(missing) = missing.as_deref_mut() else {
                        return Err(refused("its folder is not there"));
                    };
                    self.make(&name, missing)?;
                    continue;
                }
                Err(error) => return Err(Fault::io(path.display(), error)),
            };
            let kind = next
                .metadata()
                .map_err(|error| Fault::io(path.display(), error))?;
            if kind.is_dir() {
                self.resolved.push(&name);
                self.current = next.into();
            } else if kind.is_symlink() {
                self.links += 1;
                if self.links > LINKS {
                    return Err(refused("goes through too many symlinks"));
                }
                let target =
                    readlinkat(&next, c"").map_err(|errno| Fault::io(path.display(), errno))?;
                let target = Path::new(&target);
                if target.is_absolute() {
                    self.resolved = PathBuf::new();
                    self.current = self.reopen()?;
                }
                ahead.extend(parts(target));
            } else {
                return Err(refused("its folder is not a folder"));
            }
        }
        Ok(self.current)
    }

    fn make(&mut self, name: &OsStr, missing: &mut dyn Missing) -> Result<(), Fault> {
        self.resolved.push(name);
        let told = |error: io::Error| Fault::io(self.resolved.display(), error);
        match mkdirat(&self.current, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(told(errno.into())),
        }
        let flags = FOLDER | libc::O_NOFOLLOW;
        let made = sys::fs::open_beneath(&self.current, Path::new(name), flags, 0).map_err(told)?;
        missing.made(&made, &self.resolved)?;
        self.current = made;
        Ok(())
    }

    fn reopen(&self) -> Result<OwnedFd, Fault> {
        let at = if self.resolved.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.resolved
        };
        sys::fs::open_beneath(self.root, at, FOLDER, 0)
            .map_err(|error| Fault::io(self.resolved.display(), error))
    }
}

/// The parts of a path, the first one last; `..` included.
fn parts(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<_> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    parts.reverse();
    parts
}

/// The inode of what a descriptor is open on.
pub(super) fn inode(file: impl AsFd) -> io::Result<u64> {
    let file = file.as_fd().try_clone_to_owned()?;
    Ok(File::from(file).metadata()?.ino())
}
