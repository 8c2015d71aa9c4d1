//! Trees that come back from what is different in them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use daemon::diff::apply::{Place, apply_blob};
use daemon::diff::media::{Compression, Reading};
use daemon::diff::target::Hiding;
use daemon::diff::write::write_layer;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::tree::{describe, difference};
use crate::{cases, merged, plain};

/// What is made at one path of a generated tree.
#[derive(Debug, Clone)]
enum Node {
    File { data: Vec<u8>, mode: u32, time: i64 },
    Folder { mode: u32, time: i64 },
    Symlink(String),
    Link(usize),
    Fifo,
    Char(u64),
    Noted(Vec<u8>),
}

fn node() -> impl Strategy<Value = Node> {
    let time = prop::sample::select(vec![0_i64, 1_000_000_000, 1_700_000_000]);
    let mode = prop::sample::select(vec![0o644_u32, 0o4755, 0o600, 0o1777, 0o2755]);
    prop_oneof![
        4 => (prop::collection::vec(0..3_u8, 0..40), mode.clone(), time.clone())
            .prop_map(|(data, mode, time)| Node::File { data, mode, time }),
        4 => (mode, time).prop_map(|(mode, time)| Node::Folder { mode, time }),
        1 => "[a-d./]{1,6}".prop_map(Node::Symlink),
        2 => (0..12_usize).prop_map(Node::Link),
        1 => Just(Node::Fifo),
        1 => (1..4_u64).prop_map(Node::Char),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Node::Noted),
    ]
}

/// Names below one another, so that trees share some and differ in what they are.
fn generated() -> impl Strategy<Value = Vec<(String, Node)>> {
    prop::collection::vec(("[a-c](/[a-c]){0,2}", node()), 0..14)
}

fn build(root: &Path, nodes: &[(String, Node)]) {
    fs::create_dir(root).unwrap();
    let mut times = Vec::new();
    for (name, node) in nodes {
        let path = root.join(name);
        // What has no place, a name below a file or one that is taken, is left out.
        if path
            .parent()
            .is_none_or(|parent| fs::create_dir_all(parent).is_err())
            || path.symlink_metadata().is_ok()
            || path
                .parent()
                .unwrap()
                .symlink_metadata()
                .unwrap()
                .is_symlink()
        {
            continue;
        }
        match node {
            Node::File { data, mode, time } => {
                fs::write(&path, data).unwrap();
                fs::set_permissions(&path, PermissionsExt::from_mode(*mode)).unwrap();
                times.push((path, *time));
            }
            Node::Folder { mode, time } => {
                fs::create_dir(&path).unwrap();
                chown(&path, Some(*mode), Some(7)).unwrap();
                fs::set_permissions(&path, PermissionsExt::from_mode(*mode | 0o700)).unwrap();
                times.push((path, *time));
            }
            Node::Symlink(to) => symlink(to, &path).unwrap(),
            Node::Link(of) => {
                let of = nodes.get(*of).map(|(name, _)| root.join(name));
                if let Some(of) = of
                    && of
                        .symlink_metadata()
                        .is_ok_and(|metadata| metadata.is_file())
                {
                    fs::hard_link(of, path).unwrap();
                }
            }
            Node::Fifo => mknod(&path, SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap(),
            Node::Char(minor) => {
                mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, *minor)).unwrap();
            }
            Node::Noted(value) => {
                fs::write(&path, "noted").unwrap();
                let file = File::open(&path).unwrap();
                sys::xattr::set(file, OsStr::new("user.note"), value).unwrap();
            }
        }
    }
    for (path, time) in times.into_iter().rev() {
        let time = TimeSpec::new(time, 0);
        let follow = UtimensatFlags::NoFollowSymlink;
        utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, follow).unwrap();
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn a_difference_makes_the_new_tree_of_the_old_one(
        old in generated(), new in generated(), compression in 0..3_usize
    ) {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        build(&at("old"), &old);
        build(&at("new"), &new);
        let compression =
            [Compression::None, Compression::Gzip, Compression::Zstd][compression];
        let blob = File::create(at("layer")).unwrap();
        let written = write_layer(&at("old"), &at("new"), blob, compression, None).unwrap();
        prop_assert_eq!(written.size, fs::metadata(at("layer")).unwrap().len());
        let wanted = describe(&at("new"), false);

        // As one layer of an overlay.
        fs::create_dir(at("upper")).unwrap();
        let place = Place {
            root: at("upper"),
            lower: vec![at("old")],
            hiding: Hiding::Overlay("trusted."),
        };
        let open = || File::open(at("layer")).unwrap();
        let passed = apply_blob(open(), Reading::Sniff, &place, 0).unwrap();
        prop_assert_eq!(&passed.digest, &written.uncompressed);
        let seen = merged(dir.path(), &at("old"), &at("upper"));
        prop_assert_eq!(difference(&wanted, &seen), Vec::<String>::new());

        // Onto the files themselves.
        daemon::snapshot::copy::copy_tree(&at("old"), &{
            fs::create_dir(at("copy")).unwrap();
            at("copy")
        }).unwrap();
        let copied = difference(&describe(&at("old"), false), &describe(&at("copy"), false));
        prop_assert_eq!(copied, Vec::<String>::new());
        apply_blob(open(), Reading::Sniff, &plain(&at("copy")), 0).unwrap();
        let seen = describe(&at("copy"), false);
        prop_assert_eq!(difference(&wanted, &seen), Vec::<String>::new());
    }
}
