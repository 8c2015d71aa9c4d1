//! Removing a tree that may be hostile: no symlink is followed, no mount is entered, and neither
//! depth nor width costs memory or descriptors.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::errno::context;

/// How many folders below one another are open at the same time. What is deeper is moved up
/// first: a tree may be deeper than a process may have descriptors.
const DEPTH: usize = 24;

/// Removes `name` in the folder `parent` with everything below it. Absent is fine.
///
/// # Errors
/// The first thing that could not be removed; `EXDEV` where something is mounted in the tree.
pub fn remove_tree(parent: impl AsFd, name: &Path) -> io::Result<()> {
    let parent = parent.as_fd();
    let told = |errno: Errno| context(&errno.into(), format_args!("remove {}", name.display()));
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(told(errno)),
    }
    let top = match open(parent, name) {
        Ok(top) => top,
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(told(errno)),
    };
    clear(&top).map_err(told)?;
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(told(errno)),
    }
}

/// Removes everything in the folder `folder`, which stays.
///
/// # Errors
/// As [`remove_tree`].
pub fn clear_folder(folder: impl AsFd) -> io::Result<()> {
    open(folder.as_fd(), Path::new("."))
        .and_then(|top| clear(&top))
        .map_err(|errno| context(&errno.into(), "empty a folder"))
}

fn clear(top: &OwnedFd) -> nix::Result<()> {
    let mut moved = 0;
    loop {
        let before = moved;
        empty(top, top, 0, &mut moved)?;
        if moved == before {
            return Ok(());
        }
    }
}

/// Empties `folder`, except for what it moves into `top` because it is too deep.
fn empty(folder: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> nix::Result<()> {
    loop {
        let mut progress = false;
        let mut stuck = None;
        let mut listing = Dir::from_fd(open(folder.as_fd(), Path::new("."))?)?;
        for entry in listing.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match remove_entry(folder, name, entry.file_type(), top, depth, moved) {
                Ok(()) => progress = true,
                Err(Errno::ENOENT) => {}
                // Something was moved up to here, or was missed by the listing: once more.
                Err(Errno::ENOTEMPTY) => stuck = Some(Errno::ENOTEMPTY),
                Err(errno) => return Err(errno),
            }
        }
        match (progress, stuck) {
            // A listing that found nothing is the end.
            (false, None) => return Ok(()),
            (false, Some(errno)) => return Err(errno),
            (true, _) => {}
        }
    }
}

fn remove_entry(
    folder: &OwnedFd,
    name: &CStr,
    kind: Option<Type>,
    top: &OwnedFd,
    depth: usize,
    moved: &mut u64,
) -> nix::Result<()> {
    if kind != Some(Type::Directory) {
        match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
            // A file system that does not tell types, or a folder put in place of a file.
            Err(Errno::EISDIR | Errno::EPERM) => {}
            other => return other,
        }
    }
    match unlinkat(folder, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
        other => return other,
    }
    if depth >= DEPTH {
        loop {
            *moved += 1;
            match renameat(folder, name, top, format!(".wherry-deep-{moved}").as_str()) {
                // The name is taken by something of the tree itself.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                other => return other,
            }
        }
    }
    let below = open(folder.as_fd(), name)?;
    empty(&below, top, depth + 1, moved)?;
    unlinkat(folder, name, UnlinkatFlags::RemoveDir)
}

fn open<P: NixPath + ?Sized>(parent: BorrowedFd<'_>, name: &P) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(parent, name, OpenHow::new().flags(flags).resolve(resolve))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{Mode, mkdirat};

    #[test]
    fn a_tree_deeper_than_paths_and_descriptors_go_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let parent = File::open(folder.path()).unwrap();
        std::fs::create_dir_all(folder.path().join("outside/kept")).unwrap();
        std::fs::create_dir_all(folder.path().join("tree/.wherry-deep-3")).unwrap();
        symlink("../outside", folder.path().join("tree/link")).unwrap();
        let mut deep = open(parent.as_fd(), "tree").unwrap();
        for level in 0..3000 {
            mkdirat(&deep, "d", Mode::S_IRWXU).unwrap();
            if level % 100 == 0 {
                mkdirat(&deep, "e", Mode::S_IRWXU).unwrap();
                nix::unistd::symlinkat("/", &deep, "root").unwrap();
            }
            deep = open(deep.as_fd(), "d").unwrap();
        }
        remove_tree(&parent, Path::new("tree")).unwrap();
        assert!(!folder.path().join("tree").exists());
        assert!(folder.path().join("outside/kept").is_dir());
        remove_tree(&parent, Path::new("tree")).unwrap();
        remove_tree(&parent, Path::new("outside/kept")).unwrap();
    }

    #[test]
    fn a_wide_folder_is_emptied_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..3000 {
            std::fs::write(folder.path().join(format!("file-{n}")), "").unwrap();
        }
        clear_folder(File::open(folder.path()).unwrap()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
