//! Mounting a file system (anything but a bind mount) by mount(2), in the same form in which the
//! Go shims do, so that /proc/mounts reads the same; and asking the kernel afterwards why it
//! refused.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::api::{self, Context};
use super::at::{Place, fd_path};
use super::error::{At, Failure, Step};
use super::options::Options;
use super::overlay;

/// File systems whose refusal is worth asking about: local ones, whose second attempt costs
/// nothing and changes nothing.
const EXPLAINED: [&str; 9] = [
    "overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "erofs", "squashfs", "tmpfs",
];

/// mount(2) takes at most a page of options, the closing NUL included.
pub(super) fn fits_a_page(data: &str) -> bool {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(4096);
    data.len() < page
}

/// Mounts `source` as `fstype` onto `place` and returns the new mount.
pub(super) fn mount_on(
    source: &Path,
    fstype: &str,
    place: &Place,
    options: &Options,
) -> Result<OwnedFd, Failure> {
    let data = options.data_string();
    if !fits_a_page(&data) {
        return Err(too_long());
    }
    mount(
        Some(source),
        &place.path(),
        Some(fstype),
        options.flags,
        Some(data.as_str()),
    )
    .at(Step::Mount)
    .map_err(|failure| {
        let said = explain(source, fstype, options, failure.errno());
        failure.with_detail(said.unwrap_or_default())
    })?;
    place.mounted().at(Step::Target)
}

/// Mounts like [`mount_on`], with owners mapped by `userns`. Mappings go onto detached mounts
/// only: what mount(2) made is replaced by a detached copy of itself.
pub(super) fn mount_mapped(
    source: &Path,
    fstype: &str,
    place: &Place,
    options: &Options,
    userns: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let plain = mount_on(source, fstype, place, options)?;
    let mapped = api::clone_tree(&fd_path(plain.as_fd()), false)
        .at(Step::CloneTree)
        .and_then(|copy| {
            api::map_ids(copy.as_fd(), userns, false).at(Step::IdMap)?;
            Ok(copy)
        });
    super::take_back(&plain);
    let mapped = mapped?;
    drop(plain);
    api::attach(mapped.as_fd(), place.fd()).at(Step::Attach)?;
    Ok(mapped)
}

/// Remounts what is mounted at `place` with the flags and data of `options`.
pub(super) fn remount(place: &Place, options: &Options) -> Result<(), Failure> {
    let data = options.data_string();
    if !fits_a_page(&data) {
        return Err(too_long());
    }
    mount(
        None::<&str>,
        &place.path(),
        None::<&str>,
        options.flags,
        Some(data.as_str()),
    )
    .at(Step::Remount)
}

/// Changes the propagation of `target` as the words of the options said, in their order.
pub(super) fn propagate(target: BorrowedFd<'_>, changes: &[MsFlags]) -> Result<(), Failure> {
    for change in changes {
        mount(
            None::<&str>,
            &fd_path(target),
            None::<&str>,
            *change,
            None::<&str>,
        )
        .at(Step::Propagation)?;
    }
    Ok(())
}

/// Unmounts the mount that `mount` is the root of, whatever its name is by now.
pub(super) fn unmount_fd(mount: BorrowedFd<'_>) -> nix::Result<()> {
    // The descriptor itself keeps the mount busy, so only a detaching unmount can succeed.
    umount2(&fd_path(mount), MntFlags::MNT_DETACH)
}

pub(super) fn too_long() -> Failure {
    Failure::new(Step::Options, nix::errno::Errno::E2BIG)
}

/// Why the kernel refused a mount, in its own words: mount(2) has none, but a file system context
/// made of the same options keeps a log. Where that is empty, the option it refused is named.
/// Nothing is attached.
fn explain(source: &Path, fstype: &str, options: &Options, errno: Option<i32>) -> Option<String> {
    if !EXPLAINED.contains(&fstype) {
        return None;
    }
    let context = Context::open(fstype).ok()?;
    let _ = context.set_string("source", source.to_str()?);
    if options.is_read_only() {
        let _ = context.set_flag("ro");
    }
    let data = options.data.iter().map(String::as_str);
    let refused = overlay::configure(&context, data).err();
    if refused.is_none() {
        let _ = context.create();
    }
    context.messages().or_else(|| {
        // Another errno than mount(2) gave has another reason.
        let refusal = refused.filter(|refusal| refusal.error.raw_os_error() == errno)?;
        Some(refusal.what)
    })
}
