//! Bind mounts. With the calls of Linux 5.12 the copy of the source gets its flags and its id
//! mapping while still detached, so that it is never visible without them; before that, mount(2)
//! binds and a second mount(2) restricts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::api;
use super::at::Place;
use super::error::{At, Failure, Step};
use super::options::Options;

/// Binds `source` onto `place` and returns the new mount.
///
/// Restrictions (`ro`, `nosuid`, ...) are added to those of the source, never taken away, and
/// concern the topmost mount only, as with mount(8); an id mapping concerns the whole tree of an
/// `rbind`.
pub(super) fn bind(
    source: &Path,
    place: &Place,
    options: &Options,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Failure> {
    match by_tree(source, place, options, userns) {
        // Too old a kernel, or a filter of system calls that does not know these.
        Err(failure)
            if userns.is_none() && matches!(failure.errno(), Some(libc::ENOSYS | libc::EPERM)) =>
        {
            by_remount(source, place, options)
        }
        other => other,
    }
}

/// By open_tree(2), mount_setattr(2) and move_mount(2).
pub(super) fn by_tree(
    source: &Path,
    place: &Place,
    options: &Options,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Failure> {
    let tree = api::clone_tree(source, options.is_recursive()).at(Step::CloneTree)?;
    api::restrict(tree.as_fd(), options.flags).at(Step::Remount)?;
    if let Some(userns) = userns {
        api::map_ids(tree.as_fd(), userns, options.is_recursive()).at(Step::IdMap)?;
    }
    api::attach(tree.as_fd(), place.fd()).at(Step::Attach)?;
    Ok(tree)
}

/// By mount(2), which ignores all restrictions in the call that binds.
pub(super) fn by_remount(
    source: &Path,
    place: &Place,
    options: &Options,
) -> Result<OwnedFd, Failure> {
    let binding = options.flags & (MsFlags::MS_BIND | MsFlags::MS_REC);
    mount(
        Some(source),
        &place.path(),
        None::<&str>,
        binding,
        None::<&str>,
    )
    .at(Step::Mount)?;
    let bound = place.mounted().at(Step::Target)?;
    let restrictions = options.flags - (MsFlags::MS_BIND | MsFlags::MS_REC);
    if !restrictions.is_empty() {
        let restricted = existing_flags(bound.as_fd()).and_then(|existing| {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | restrictions | existing;
            let path = super::at::fd_path(bound.as_fd());
            mount(None::<&str>, &path, None::<&str>, flags, None::<&str>)
        });
        if let Err(error) = restricted {
            super::take_back(&bound);
            return Err(Failure::new(Step::Remount, error));
        }
    }
    Ok(bound)
}

/// The flags a mount has already. A remount sets all flags anew, so they must be named again:
/// dropping them would widen the mount, and in a user namespace, where they are locked, fail.
fn existing_flags(mount: BorrowedFd<'_>) -> Result<MsFlags, Errno> {
    let existing = fstatvfs(mount)?.flags();
    let mut flags = MsFlags::empty();
    for (has, flag) in [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if existing.contains(has) {
            flags |= flag;
        }
    }
    Ok(flags)
}
