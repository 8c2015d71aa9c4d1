//! Trees with everything that a layer can have.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be made ends a test"
)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

/// A tree with one of everything that a layer can have.
pub fn rich_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("folder/deep")).unwrap();
    fs::write(at("folder/plain"), vec![7; 300_000]).unwrap();
    fs::hard_link(at("folder/plain"), at("linked")).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("setuid"), "x").unwrap();
    chown(at("setuid"), Some(1000), Some(2000)).unwrap();
    fs::set_permissions(at("setuid"), PermissionsExt::from_mode(0o6751)).unwrap();
    fs::set_permissions(at("folder/deep"), PermissionsExt::from_mode(0o1777)).unwrap();
    symlink("folder/plain", at("relative")).unwrap();
    symlink("/nowhere", at("absolute")).unwrap();
    lchown(at("absolute"), Some(12), Some(13)).unwrap();
    let mode = Mode::from_bits_truncate(0o640);
    mknod(&at("char"), SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
    mknod(&at("block"), SFlag::S_IFBLK, mode, makedev(7, 300)).unwrap();
    mknod(&at("fifo"), SFlag::S_IFIFO, mode, 0).unwrap();
    let moment = TimeSpec::new(1_500_000_000, 0);
    for name in ["folder/deep", "folder", "linked", "relative"] {
        let follow = UtimensatFlags::NoFollowSymlink;
        utimensat(nix::fcntl::AT_FDCWD, &at(name), &moment, &moment, follow).unwrap();
    }
}

/// What only the newer dialects can tell of.
pub fn modern_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::write(at(&"n".repeat(180)), "long").unwrap();
    let deep = at(&format!("{}/{}", "d".repeat(120), "e".repeat(120)));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("leaf"), "leaf").unwrap();
    symlink("m".repeat(150), at("long-link")).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    for part in 0..40_u64 {
        sparse.write_all_at(b"data", part << 18).unwrap();
    }
    sparse.set_len(64 << 20).unwrap();
    fs::write(at("owned"), "x").unwrap();
    chown(at("owned"), Some(3_000_000), Some(4_000_000_000)).unwrap();
}

pub fn attributes(root: &Path) {
    let file = File::open(root.join("empty")).unwrap();
    sys::xattr::set(&file, OsStr::new("user.note"), b"a\nb\0c").unwrap();
    // cap_net_raw+ep
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    sys::xattr::set(&file, OsStr::new("security.capability"), &capability).unwrap();
}
