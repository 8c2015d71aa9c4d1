//! Looking into a snapshot: it is mounted where nobody else sees it, by a thread with mounts of its
//! own. However we end, nothing stays mounted.

use std::path::Path;
use std::thread;

use core_api::types::Mount;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Context, Error, Result};

/// A folder of every machine, whose place the snapshot takes for the thread alone.
const PLACE: &str = "/sys";

/// Mounts, and lets `look` look at the root folder of what is mounted.
///
/// # Errors
/// It cannot be mounted, or those of `look`.
pub(crate) fn look<T: Send>(
    mounts: &[Mount],
    look: impl FnOnce(&Path) -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let looking = thread::Builder::new().spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNS)
                .about("cannot look into the snapshot: a mount namespace")?;
            let none: Option<&str> = None;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).about("a mount namespace")?;
            let place = Path::new(PLACE);
            let refuse = |error| Error::said(format!("cannot look into the snapshot: {error}"));
            let mounts: Vec<_> = mounts.iter().map(to_sys).collect();
            sys::mount::mount_all(&mounts, place).map_err(refuse)?;
            let seen = look(place);
            // Before the container's own mount of the same folders, which the end of the
            // namespace may come after.
            sys::mount::unmount_recursive(place).map_err(refuse)?;
            seen
        });
        let seen = looking.about("a thread")?.join();
        seen.unwrap_or_else(|_| Err(Error::said("looking into the snapshot failed")))
    })
}

fn to_sys(mount: &Mount) -> sys::mount::Mount {
    sys::mount::Mount {
        kind: mount.r#type.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    }
}
