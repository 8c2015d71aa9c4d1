//! Hiding what lower layers have: by deleting it, or by the marks of the kernel's overlay.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};
use nix::unistd::{Gid, Uid, fchownat};

use super::{Target, is};
use crate::diff::fault::Fault;
use crate::diff::resolve::inode;
use crate::diff::tar::Entry;

/// How what lower layers have is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hiding {
    /// By deleting it: the tree has the files of lower layers too.
    Deletion,
    /// By the marks of the kernel's overlay, with attributes of this class (`trusted.`, or
    /// `user.` in user namespaces).
    Overlay(&'static str),
}

impl Target {
    /// Hides what lower layers have under a name.
    pub(super) fn hide(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<(), Fault> {
        let told = |errno: Errno| Fault::io(name.display(), errno);
        let there = match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) => Some(there),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(told(errno)),
        };
        match (self.hiding, there) {
            (Hiding::Overlay(_), None) => {
                mknodat(folder, name, SFlag::S_IFCHR, Mode::empty(), 0).map_err(told)?;
                let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                fchownat(folder, name, Some(uid), Some(gid), flags).map_err(told)
            }
            // What this layer itself has brought is not hidden by it.
            (Hiding::Overlay(_), Some(_)) | (Hiding::Deletion, None) => Ok(()),
            (Hiding::Deletion, Some(there)) if self.is_ours(there.st_ino) => {
                if is(&there, SFlag::S_IFDIR) {
                    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                    let inner = sys::fs::open_beneath(folder, Path::new(name), flags, 0)
                        .map_err(|error| Fault::io(name.display(), error))?;
                    self.delete_foreign(&inner)?;
                }
                Ok(())
            }
            (Hiding::Deletion, Some(_)) => self.remove(folder, name),
        }
    }

    /// Hides everything that lower layers have in a folder.
    pub(super) fn hide_all(&mut self, folder: &OwnedFd, path: &Path) -> Result<(), Fault> {
        match self.hiding {
            Hiding::Overlay(_) => self.mark_opaque(folder, path),
            Hiding::Deletion => {
                self.last = None;
                self.delete_foreign(folder)
            }
        }
    }

    pub(super) fn mark_opaque(&self, folder: &OwnedFd, path: &Path) -> Result<(), Fault> {
        let Hiding::Overlay(class) = self.hiding else {
            return Ok(());
        };
        let name = format!("{class}overlay.opaque");
        sys::xattr::set(folder, OsStr::new(&name), b"y").map_err(|error| Fault::at(path, error))
    }

    pub(super) fn is_ours(&self, inode: u64) -> bool {
        self.was_empty || self.made.contains(inode)
    }

    /// Deletes everything in `folder`, at any depth, that this layer has not made. A folder is
    /// gone through once: from then on everything in it is the layer's own.
    fn delete_foreign(&mut self, folder: &OwnedFd) -> Result<(), Fault> {
        if self.was_empty {
            return Ok(());
        }
        let told = |error: io::Error| Fault::io("an opaque folder", error);
        let mut waiting = vec![PathBuf::from(".")];
        while let Some(path) = waiting.pop() {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            let opened = sys::fs::open_beneath(folder, &path, flags, 0).map_err(told)?;
            if !self.cleared.insert(inode(&opened).map_err(told)?) {
                continue;
            }
            let place = opened.try_clone().map_err(told)?;
            let mut listing = Dir::from_fd(opened).map_err(|errno| told(errno.into()))?;
            for entry in listing.iter() {
                let entry = entry.map_err(|errno| told(errno.into()))?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let there = match fstatat(&place, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Ok(there) => there,
                    Err(Errno::ENOENT) => continue,
                    Err(errno) => return Err(told(errno.into())),
                };
                if !self.made.contains(there.st_ino) {
                    sys::tree::remove_tree(&place, Path::new(name)).map_err(told)?;
                } else if is(&there, SFlag::S_IFDIR) {
                    waiting.push(path.join(name));
                }
            }
        }
        Ok(())
    }
}
