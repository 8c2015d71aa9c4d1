//! Owner, mode, times and attributes of what was just made, by descriptor.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::AtFlags;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use super::fault::Fault;
use super::tar::{Entry, Moment};

/// Makes the folder `to` like `from`, whose metadata `like` is, but for `trusted.` attributes.
pub(super) fn copy_folder(from: &File, like: &std::fs::Metadata, to: &OwnedFd) -> io::Result<()> {
    chown(to, like.uid(), like.gid())?;
    for name in sys::xattr::list(from)? {
        if !name.as_bytes().starts_with(b"trusted.")
            && let Some(value) = sys::xattr::get(from, &name)?
        {
            sys::xattr::set(to, &name, &value)?;
        }
    }
    chmod(to, like.mode())?;
    let time = |seconds, nanoseconds| TimeSpec::new(seconds, nanoseconds);
    set_times(
        to,
        &time(like.atime(), like.atime_nsec()),
        &time(like.mtime(), like.mtime_nsec()),
    )
}

/// By the descriptor's name in /proc: `O_PATH` descriptors take no fchmod(2) or futimens(2).
fn proc_path(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

pub(super) fn chown(file: &impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(fchownat(
        file.as_fd(),
        c"",
        uid,
        gid,
        AtFlags::AT_EMPTY_PATH,
    )?)
}

pub(super) fn chmod(file: &impl AsFd, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(mode & 0o7777);
    std::fs::set_permissions(proc_path(file), mode)
}

pub(super) fn set_times(
    file: &impl AsFd,
    accessed: &TimeSpec,
    modified: &TimeSpec,
) -> io::Result<()> {
    let path = proc_path(file);
    let follow = UtimensatFlags::FollowSymlink;
    Ok(utimensat(
        nix::fcntl::AT_FDCWD,
        path.as_str(),
        accessed,
        modified,
        follow,
    )?)
}

/// As filesystems can have it: what is before 1970 or after 2262 becomes 1970, as in containerd.
pub(super) fn time(moment: Moment) -> TimeSpec {
    if (0..=i64::MAX / 1_000_000_000).contains(&moment.seconds) {
        TimeSpec::new(moment.seconds, i64::from(moment.nanoseconds))
    } else {
        TimeSpec::new(0, 0)
    }
}

/// Sets what may be set: those of the class `trusted.` are the host's own business.
pub(super) fn set_attributes(file: &impl AsFd, entry: &Entry) -> Result<(), Fault> {
    for (name, value) in &entry.attributes {
        if name.starts_with(b"trusted.") {
            continue;
        }
        match sys::xattr::set(file, OsStr::from_bytes(name), value) {
            Err(error) if sys::xattr::is_unsupported(&error) => {
                log::warn!(
                    "{}: the filesystem does not take the attribute {}",
                    String::from_utf8_lossy(&entry.path),
                    String::from_utf8_lossy(name)
                );
            }
            other => other.map_err(|error| {
                let what = format!(
                    "{}: attribute {}",
                    String::from_utf8_lossy(&entry.path),
                    String::from_utf8_lossy(name)
                );
                Fault::io(what, error)
            })?,
        }
    }
    Ok(())
}
