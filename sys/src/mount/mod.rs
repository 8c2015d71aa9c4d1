//! The mounts that containerd passes to a shim, and their end: bind mounts, file systems, overlays
//! of any number of layers, loop devices, id-mapped mounts for user namespaces.
//!
//! Everything here blocks; callers run it in a helper thread. The working directory of the process
//! is never touched, no signal handling is changed for longer than a clone(2), and no child is
//! ever visible to the process's one reaper.
//!
//! From options to kernel: `options` sorts the words, `at` finds the place, then `bind`,
//! `overlay` (with `layers`) or `filesystem` mounts, over `loopdev` and `userns` where asked for; `api` holds the
//! system calls, `unmount` and `mountinfo` the way back.

mod api;
mod at;
mod bind;
mod error;
mod filesystem;
mod layers;
mod loopdev;
mod mountinfo;
mod options;
mod overlay;
#[cfg(test)]
mod tests;
mod unmount;
mod userns;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use at::Place;
use error::{At, Failure};
use loopdev::LoopDevice;
use options::Options;

pub use error::{MountError, Step};
pub use unmount::{mounts_below, unmount_recursive};

/// One mount, as containerd's API describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// File system type; `bind` (or empty) together with the option `bind` or `rbind`.
    pub kind: String,
    /// What to mount: a folder, a device, a file with the option `loop`, or a mere name.
    pub source: String,
    /// Path below the root file system, usually empty. Symlinks are resolved within it.
    pub target: String,
    /// Options as mount(8) and containerd write them: flag words, propagation words, `loop`,
    /// `uidmap=INSIDE:OUTSIDE:COUNT[,...]` with `gidmap=`, and options of the file system.
    /// `X-containerd.*` is ignored.
    pub options: Vec<String>,
}

/// Mounts `mounts` in their order on `rootfs`, an absolute path which must not be a symlink.
/// `rootfs` (mode 0711) and missing folders of a target are created. An empty list does nothing.
///
/// # Errors
///
/// When one fails, those before it are unmounted in reverse order, and [`MountError`] tells which
/// failed at what and why. Folders that were created stay; a remount is not undone.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), MountError> {
    let mut done: Vec<OwnedFd> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        match mount_one(mount, rootfs) {
            Ok(mounted) => done.extend(mounted),
            Err(Failure {
                step,
                error,
                detail,
            }) => {
                while let Some(mounted) = done.pop() {
                    take_back(&mounted);
                }
                return Err(MountError {
                    fstype: mount.kind.clone(),
                    source: mount.source.clone(),
                    target: match mount.target.trim_start_matches('/') {
                        "" => rootfs.to_owned(),
                        below => rootfs.join(below),
                    },
                    step,
                    error,
                    detail,
                });
            }
        }
    }
    Ok(())
}

/// Mounts one and returns the root of the new mount, or none for a remount.
fn mount_one(mount: &Mount, rootfs: &Path) -> Result<Option<OwnedFd>, Failure> {
    let options = Options::parse(&mount.options).at(Step::Options)?;
    if ["fuse.", "fuse3."]
        .iter()
        .any(|prefix| mount.kind.starts_with(prefix))
    {
        // These need a mount helper that stays as a child of the shim.
        return Err(Failure::new(Step::Mount, Errno::EOPNOTSUPP));
    }
    let place = Place::open(rootfs, &mount.target).at(Step::Target)?;
    if options.is_remount() {
        filesystem::remount(&place, &options)?;
        filesystem::propagate(place.fd(), &options.propagation)?;
        return Ok(None);
    }
    let userns = match &options.id_mapping {
        Some(mapping) => Some(userns::with_mapping(mapping).at(Step::UserNamespace)?),
        None => None,
    };
    let userns = userns.as_ref().map(AsFd::as_fd);
    let loop_device = if options.loop_device {
        let file = Path::new(&mount.source);
        let device = LoopDevice::bind(file, options.is_read_only(), options.direct_io);
        Some(device.at(Step::LoopDevice)?)
    } else {
        None
    };
    let source = loop_device
        .as_ref()
        .map_or_else(|| Path::new(&mount.source), LoopDevice::path);
    let mounted = if options.is_bind() {
        bind::bind(source, &place, &options, userns)?
    } else {
        match (mount.kind.as_str(), userns) {
            ("overlay", None) => overlay::mount_on(source, &place, &options)?,
            ("overlay", Some(userns)) => overlay::mount_mapped(source, &place, &options, userns)?,
            (fstype, None) => filesystem::mount_on(source, fstype, &place, &options)?,
            (fstype, Some(userns)) => {
                filesystem::mount_mapped(source, fstype, &place, &options, userns)?
            }
        }
    };
    if let Err(failure) = filesystem::propagate(mounted.as_fd(), &options.propagation) {
        take_back(&mounted);
        return Err(failure);
    }
    Ok(Some(mounted))
}

/// Unmounts what has just been mounted, by descriptor, so that nothing else can be hit. Nobody
/// uses the mount yet: it ends with the descriptor. There is nothing to be done about a failure.
fn take_back(mounted: &OwnedFd) {
    let _ = filesystem::unmount_fd(mounted.as_fd());
}
