//! Unmounting everything at and below a path, innermost first.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollTimeout, poll};

use super::at;
use super::error::{MountError, Step};
use super::mountinfo::{self, Entry};

/// How long all busy mounts of one call together are waited for before they are detached.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait between two attempts at a busy mount, in milliseconds.
const BUSY_PAUSE_MS: u16 = 20;

/// The mount points at or below `path`, in the order of the kernel's table. A mount point with
/// several mounts stacked on it appears once for each. Symlinks in the parents of `path` are
/// resolved; a last component that is a symlink, or absent, has nothing below it.
///
/// # Errors
///
/// When the parents of `path` cannot be resolved for another reason than their absence, or
/// /proc is not mounted.
pub fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(path) = canonical(path)? else {
        return Ok(Vec::new());
    };
    Ok(mountinfo::below(&path)?
        .into_iter()
        .map(|entry| entry.path)
        .collect())
}

/// Unmounts everything mounted at or below `path`, innermost first, until nothing is left. A path
/// that is absent, or on which nothing is mounted, is a success.
///
/// A busy mount is tried again for at most one second in all; after that it is detached
/// (`MNT_DETACH`): it is gone from the tree, and its file system goes when its last user does.
/// No symlink below `path` is followed, so a container that plants one cannot point the unmount
/// at a mount of the host. Blocks.
///
/// # Errors
///
/// [`MountError`] names the mount point that could not be unmounted.
pub fn unmount_recursive(path: &Path) -> Result<(), MountError> {
    let fail = |step| move |error| MountError::unmounting(path, step, error);
    let Some(base) = canonical(path).map_err(fail(Step::Target))? else {
        return Ok(());
    };
    if base.parent().is_none() {
        // Nobody means this; an empty or wrong path of a bundle may come to it.
        let why = "refusing to unmount everything from the root on";
        return Err(fail(Step::Target)(io::Error::new(
            io::ErrorKind::InvalidInput,
            why,
        )));
    }
    let mut patience = Patience { until: None };
    loop {
        let mounts = mountinfo::below(&base).map_err(fail(Step::MountTable))?;
        if mounts.is_empty() {
            return Ok(());
        }
        // A mount that covers the way to others hides them: they are unreachable until it is
        // gone. So each round takes what it can, and only a round without progress is a failure.
        let mut progress = false;
        let mut failed = None;
        for mount in innermost(&mounts) {
            match unmount(&base, &mount.path, &mut patience) {
                Ok(()) => progress = true,
                Err(error) => failed = Some((mount.path.clone(), error)),
            }
        }
        if progress {
            continue;
        }
        // Last resort: detach one that can be reached, with all that hangs on it.
        let detached = mounts
            .iter()
            .rev()
            .any(|mount| detach(&base, &mount.path).is_ok());
        // Somebody else may have unmounted meanwhile: only an unchanged table is a failure.
        if !detached
            && let Some((path, error)) = failed
            && mountinfo::below(&base).map_err(fail(Step::MountTable))? == mounts
        {
            return Err(MountError::unmounting(&path, Step::Unmount, error.into()));
        }
    }
}

/// Mounts on which no other of `mounts` stands. The order of the table alone does not tell: a
/// mount made detached and attached later has a lower id than the one it stands on.
fn innermost(mounts: &[Entry]) -> Vec<&Entry> {
    let parents: HashSet<u64> = mounts.iter().map(|mount| mount.parent).collect();
    mounts
        .iter()
        .rev()
        .filter(|mount| !parents.contains(&mount.id))
        .collect()
}

/// When to stop being patient; the clock starts with the first busy mount.
struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// Waits a little; false once the time is up.
    fn pause(&mut self) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + BUSY_PATIENCE);
        if now >= until {
            return false;
        }
        // poll(2) on nothing is a wait; a signal that cuts it short only means an earlier attempt.
        let _ = poll(&mut [], PollTimeout::from(BUSY_PAUSE_MS));
        true
    }
}

fn unmount(base: &Path, path: &Path, patience: &mut Patience) -> nix::Result<()> {
    loop {
        match unmount_at(base, path, MntFlags::empty()) {
            Err(Errno::EBUSY) => {
                if !patience.pause() {
                    return unmount_at(base, path, MntFlags::MNT_DETACH);
                }
            }
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

pub(super) fn detach(base: &Path, path: &Path) -> nix::Result<()> {
    unmount_at(base, path, MntFlags::MNT_DETACH)
}

/// Unmounts the topmost mount at `path`, which is `base` or below it. The folder that holds the
/// mount point is reached without following any symlink below the parent of `base`.
fn unmount_at(base: &Path, path: &Path, flags: MntFlags) -> nix::Result<()> {
    let flags = flags | MntFlags::UMOUNT_NOFOLLOW;
    let (Some(top), Some(folder), Some(name)) = (base.parent(), path.parent(), path.file_name())
    else {
        return Err(Errno::EINVAL);
    };
    let way = folder.strip_prefix(top).map_err(|_| Errno::EINVAL)?;
    let folder = at::walk(at::open_folder(top)?, way)?;
    umount2(&at::fd_path(folder.as_fd()).join(name), flags)
}

/// `path` as the mount table writes it; `None` when a part of its way is absent or no folder. The
/// last component is not resolved: it may be the root of a dead file system, and a symlink there
/// is not ours to follow.
fn canonical(path: &Path) -> io::Result<Option<PathBuf>> {
    let path: PathBuf = path.components().collect();
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let Some(name) = path.file_name() else {
        return path.canonicalize().map(Some);
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(Some(parent.join(name))),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn innermost_goes_by_parents_whatever_the_order_of_ids_and_lines() {
        let entry = |id, parent, path: &str| Entry {
            id,
            parent,
            path: PathBuf::from(path),
        };
        // 10 was made detached before 20 and attached to it; 30 is stacked on 10.
        let table = [
            entry(10, 20, "/r/a"),
            entry(30, 10, "/r/a"),
            entry(20, 1, "/r"),
        ];
        for rotation in 0..3 {
            let mut table = table.to_vec();
            table.rotate_left(rotation);
            let found: Vec<_> = innermost(&table).iter().map(|mount| mount.id).collect();
            assert_eq!(found, [30]);
        }
    }
}
