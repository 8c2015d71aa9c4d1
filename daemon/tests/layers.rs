//! Layers, unpacked and made: archives of the system's tar in every dialect, hostile archives,
//! broken ones, and trees that come back from their difference. Needs root.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run programs and wait for them"
)]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "what cannot be set up ends a test"
)]

#[path = "common/rich.rs"]
mod rich;
#[path = "common/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use daemon::diff::apply::{Place, apply, apply_blob};
use daemon::diff::fault::Fault;
use daemon::diff::media::{Compression, Reading};
use daemon::diff::target::Hiding;
use daemon::diff::write::write_layer;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use proptest::prelude::*;
use rich::{attributes, modern_tree, rich_tree};
use tar::{EntryType, Header};
use tempfile::TempDir;
use tree::{describe, difference};

fn plain(root: &Path) -> Place {
    Place {
        root: root.to_owned(),
        lower: Vec::new(),
        hiding: Hiding::Deletion,
    }
}

fn tar(arguments: &[&str], from: &Path, to: &Path) {
    let mut command = Command::new("tar");
    command
        .arg("-C")
        .arg(from)
        .args(arguments)
        .arg("-cf")
        .arg(to)
        .arg(".");
    assert!(command.status().unwrap().success(), "{command:?}");
}

#[test]
fn every_dialect_of_tar_is_unpacked_as_it_was_packed() {
    let dir = TempDir::new().unwrap();
    for (number, arguments) in [
        &["--format=v7"][..],
        &["--format=ustar"],
        &["--format=oldgnu", "--sparse"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--xattrs", "--xattrs-include=*"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ]
    .into_iter()
    .enumerate()
    {
        let is_modern = !arguments[0].ends_with("v7") && !arguments[0].ends_with("ustar");
        let (from, to) = (
            dir.path().join(format!("from{number}")),
            dir.path().join(format!("to{number}")),
        );
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        rich_tree(&from);
        if is_modern {
            modern_tree(&from);
        }
        if arguments.contains(&"--xattrs") {
            attributes(&from);
        }
        if arguments[0].ends_with("v7") {
            // It knows no devices.
            for name in ["char", "block", "fifo"] {
                fs::remove_file(from.join(name)).unwrap();
            }
        }
        let archive = dir.path().join("archive");
        tar(arguments, &from, &archive);
        apply_blob(
            File::open(&archive).unwrap(),
            Reading::Plain,
            &plain(&to),
            0,
        )
        .unwrap_or_else(|fault| panic!("{arguments:?}: {fault}"));
        // Only PAX has parts of seconds.
        let whole = !arguments[0].ends_with("pax");
        let differences = difference(&describe(&from, whole), &describe(&to, whole));
        assert_eq!(differences, Vec::<String>::new(), "{arguments:?}");
        if arguments.contains(&"--sparse") {
            let blocks = fs::metadata(to.join("sparse")).unwrap().blocks();
            assert!(blocks * 512 < 8 << 20, "{arguments:?}: holes are filled");
        }
    }
}

#[test]
fn compressed_layers_are_told_by_what_they_begin_with() {
    let dir = TempDir::new().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    rich_tree(&from);
    let archive = dir.path().join("archive");
    tar(&["--format=pax"], &from, &archive);
    let uncompressed = fs::read(&archive).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&uncompressed[..1000]).unwrap();
    let mut gzip = gzip.finish().unwrap();
    // A second member, as parallel compressors write.
    let mut second = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    second.write_all(&uncompressed[1000..]).unwrap();
    gzip.extend(second.finish().unwrap());
    let mut zstd = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    zstd.extend(zstd::encode_all(&uncompressed[..], 3).unwrap());
    let mut digests = Vec::new();
    for (name, bytes) in [("plain", &uncompressed), ("gzip", &gzip), ("zstd", &zstd)] {
        let (blob, to) = (dir.path().join("blob"), dir.path().join(name));
        fs::write(&blob, bytes).unwrap();
        fs::create_dir(&to).unwrap();
        let blob = File::open(&blob).unwrap();
        let passed = apply_blob(blob, Reading::Sniff, &plain(&to), 0).unwrap();
        assert_eq!(passed.size, uncompressed.len() as u64, "{name}");
        digests.push(passed.digest);
        let differences = difference(&describe(&from, false), &describe(&to, false));
        assert_eq!(differences, Vec::<String>::new(), "{name}");
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
    // Cut short, in the middle of the data and at its end.
    for length in [gzip.len() / 2, gzip.len() - 3] {
        let (blob, to) = (dir.path().join("blob"), dir.path().join("cut"));
        fs::write(&blob, &gzip[..length]).unwrap();
        fs::create_dir_all(&to).unwrap();
        let blob = File::open(&blob).unwrap();
        let fault = apply_blob(blob, Reading::Sniff, &plain(&to), 0).unwrap_err();
        assert!(matches!(fault, Fault::Layer(_)), "{fault}");
    }
}

#[test]
fn a_layer_that_proves_broken_after_its_last_entry_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let (blob, to) = (dir.path().join("blob"), dir.path().join("to"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive(&[entry("a"), entry("b/c")]))
        .unwrap();
    let mut bytes = gzip.finish().unwrap();
    // The checksum is before the length, at the very end.
    let at = bytes.len() - 8;
    bytes[at] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    fs::create_dir(&to).unwrap();
    let fault = apply_blob(File::open(&blob).unwrap(), Reading::Sniff, &plain(&to), 0).unwrap_err();
    assert!(fault.to_string().contains("checksum"), "{fault}");
    assert_eq!(describe(&to, false).len(), 0);
}

/// One entry of an archive made by hand.
struct Made<'a> {
    name: &'a str,
    kind: EntryType,
    link: &'a str,
    data: &'a [u8],
}

fn entry(name: &str) -> Made<'_> {
    Made {
        name,
        kind: EntryType::Regular,
        link: "",
        data: b"data",
    }
}

fn link<'a>(kind: EntryType, name: &'a str, link: &'a str) -> Made<'a> {
    Made {
        name,
        kind,
        link,
        data: b"",
    }
}

fn archive(entries: &[Made<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for made in entries {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..made.name.len()].copy_from_slice(made.name.as_bytes());
        old.linkname[..made.link.len()].copy_from_slice(made.link.as_bytes());
        header.set_entry_type(made.kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(made.data.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(made.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A folder with a secret outside of the target, which must stay as it is.
fn guarded() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/secret"), "secret").unwrap();
    (dir, target)
}

#[test]
fn hostile_archives_are_refused_with_the_entry_named_and_leave_nothing() {
    use EntryType::{Link, Regular, Symlink, XHeader};
    let long = "7/".repeat(20);
    let pax = format!("{} path=x\n", 10 + (1 << 21));
    for (what, entries, says) in [
        ("a name up", vec![entry("a/../../x")], "leads out"),
        ("a rooted name up", vec![entry("/../x")], "leads out"),
        (
            "a folder that is a symlink up",
            vec![link(Symlink, "s", "../outside"), entry("s/secret")],
            "leads out",
        ),
        (
            "a symlink through a symlink up",
            vec![
                link(Symlink, "a", "."),
                link(Symlink, "s", "a/../../outside"),
                entry("s/new"),
            ],
            "leads out",
        ),
        (
            "a hard link up",
            vec![link(Link, "h", "../outside/secret")],
            "hard link",
        ),
        (
            "a hard link through a symlink up",
            vec![
                link(Symlink, "s", "../outside"),
                link(Link, "h", "s/secret"),
            ],
            "hard link",
        ),
        (
            "a hard link to nothing",
            vec![link(Link, "h", "none")],
            "not there",
        ),
        (
            "a hard link to the root",
            vec![link(Link, "h", "/")],
            "hard link",
        ),
        (
            "a whiteout of the parent",
            vec![entry("a/.wh...")],
            "whiteout",
        ),
        ("a whiteout of nothing", vec![entry(".wh.")], "whiteout"),
        (
            "a circle",
            vec![link(Symlink, "s", "s"), entry("s/x")],
            "too many symlinks",
        ),
        (
            "a file as a folder",
            vec![entry("f"), entry("f/x")],
            "not a folder",
        ),
        (
            "an unknown type",
            vec![link(EntryType::new(b'M'), "m", "")],
            "type",
        ),
        (
            "long records",
            vec![Made {
                name: "x",
                kind: XHeader,
                link: "",
                data: &vec![0; (1 << 20) + 1],
            }],
            "more than 1 MiB",
        ),
        (
            "records that lie about their length",
            vec![Made {
                name: "x",
                kind: XHeader,
                link: "",
                data: pax.as_bytes(),
            }],
            "PAX",
        ),
        (
            "many records before one entry",
            (0..2100)
                .map(|_| Made {
                    name: "x",
                    kind: XHeader,
                    link: "",
                    data: b"10 path=x\n",
                })
                .collect(),
            "more than 1 MiB",
        ),
        (
            "deep",
            vec![
                entry(&long),
                Made {
                    kind: Regular,
                    ..entry("../x")
                },
            ],
            "leads out",
        ),
    ] {
        let (dir, target) = guarded();
        let before = describe(dir.path(), false);
        let fault = apply(&archive(&entries)[..], &plain(&target), 0).expect_err(what);
        assert!(matches!(fault, Fault::Layer(_)), "{what}: {fault:?}");
        assert!(fault.to_string().contains(says), "{what}: {fault}");
        assert_eq!(
            describe(dir.path(), false).len(),
            before.len(),
            "{what}: something is left"
        );
        let secret = fs::read_to_string(dir.path().join("outside/secret")).unwrap();
        assert_eq!(secret, "secret", "{what}");
    }
}

#[test]
fn absolute_symlinks_mean_the_target_as_they_will_in_a_container() {
    let (dir, target) = guarded();
    let outside = dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    let entries = [
        link(EntryType::Symlink, "s", outside),
        entry("s/secret"),
        link(EntryType::Symlink, "run", "/var/run"),
        entry("run/pid"),
        entry("/rooted"),
    ];
    apply(&archive(&entries)[..], &plain(&target), 0).unwrap();
    let inside = target.join(outside.trim_start_matches('/')).join("secret");
    assert_eq!(fs::read(inside).unwrap(), b"data");
    assert_eq!(fs::read(target.join("var/run/pid")).unwrap(), b"data");
    assert_eq!(fs::read(target.join("rooted")).unwrap(), b"data");
    assert_eq!(
        fs::read(dir.path().join("outside/secret")).unwrap(),
        b"secret"
    );
}

#[test]
fn broken_archives_are_named_as_such() {
    let good = archive(&[entry("a"), entry("b")]);
    let mut checksum = good.clone();
    checksum[0] = b'x';
    let mut hole = good.clone();
    hole[1024..1536].fill(0);
    for (what, bytes) in [
        ("checksum", &checksum[..]),
        ("a header cut short", &good[..700 + 1024]),
        ("data cut short", &good[..600]),
        ("an empty block", &hole),
    ] {
        let (_dir, target) = guarded();
        let fault = apply(bytes, &plain(&target), 0).expect_err(what);
        assert!(matches!(fault, Fault::Layer(_)), "{what}: {fault:?}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{what}");
    }
    // No end at all is as good as one, and what follows the end does not count.
    let (_dir, target) = guarded();
    apply(&good[..2048], &plain(&target), 0).unwrap();
    apply(&[&good[..], b"more"].concat()[..], &plain(&target), 0).unwrap();
    apply(&[][..], &plain(&target), 0).unwrap();
}

#[test]
fn the_reserve_of_free_space_stops_unpacking_and_what_was_unpacked_goes() {
    let (_dir, target) = guarded();
    let free = nix::sys::statvfs::statvfs(&target).unwrap();
    let free = free.blocks_available() * free.fragment_size();
    let fault = apply(&archive(&[entry("a")])[..], &plain(&target), free * 2).unwrap_err();
    assert!(matches!(fault, Fault::Full(_)), "{fault:?}");
    assert!(fault.to_string().contains("unpack_reserve"), "{fault}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    // What was there before is not ours to remove.
    fs::write(target.join("before"), "").unwrap();
    apply(&archive(&[entry("a")])[..], &plain(&target), free * 2).unwrap_err();
    assert!(target.join("before").exists());
    apply(&archive(&[entry("a")])[..], &plain(&target), 1).unwrap();
}

#[test]
fn a_full_disk_says_so_and_leaves_nothing() {
    let (dir, target) = guarded();
    let small = sys::mount::Mount {
        kind: "tmpfs".into(),
        source: "small".into(),
        target: String::new(),
        options: vec!["size=1m".into()],
    };
    sys::mount::mount_all(&[small], &target).unwrap();
    let data = vec![1; 2 << 20];
    let big = Made {
        data: &data,
        ..entry("big")
    };
    let fault = apply(&archive(&[entry("a"), big])[..], &plain(&target), 0);
    let left = fs::read_dir(&target).unwrap().count();
    sys::mount::unmount_recursive(&target).unwrap();
    assert!(matches!(fault, Err(Fault::Full(_))), "{fault:?}");
    assert_eq!(left, 0);
    drop(dir);
}

#[test]
fn a_window_of_zstandard_that_would_take_the_memory_is_refused() {
    let (dir, target) = guarded();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&archive(&[entry("a")])).unwrap();
    let blob = dir.path().join("blob");
    fs::write(&blob, encoder.finish().unwrap()).unwrap();
    let blob = File::open(blob).unwrap();
    let fault = apply_blob(blob, Reading::Sniff, &plain(&target), 0).unwrap_err();
    assert!(matches!(fault, Fault::Layer(_)), "{fault:?}");
}

#[test]
fn whiteouts_hide_what_is_below_and_never_what_the_layer_brings() {
    for overlay in [false, true] {
        let dir = TempDir::new().unwrap();
        let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
        for name in ["opaque/old/deep", "kept", "typed", "gone/in"] {
            fs::create_dir_all(lower.join(name)).unwrap();
        }
        for name in [
            "opaque/f",
            "opaque/old/deep/f",
            "kept/f",
            "kept/g",
            "typed/f",
        ] {
            fs::write(lower.join(name), "lower").unwrap();
        }
        fs::set_permissions(lower.join("kept"), PermissionsExt::from_mode(0o700)).unwrap();
        chown(lower.join("kept"), Some(5), Some(6)).unwrap();
        let entries = [
            entry("opaque/before"),
            entry("opaque/.wh..wh..opq"),
            entry("opaque/after"),
            entry("kept/.wh.f"),
            entry("kept/.wh.nothing"),
            entry("new"),
            entry(".wh.new"),
            entry(".wh.gone"),
            entry(".wh.typed"),
            link(EntryType::Directory, "typed", ""),
            entry("typed/mine"),
            entry(".wh..wh.plnk"),
        ];
        let bytes = archive(&entries);
        let seen = if overlay {
            fs::create_dir(&upper).unwrap();
            let place = Place {
                root: upper.clone(),
                lower: vec![lower.clone()],
                hiding: Hiding::Overlay("trusted."),
            };
            apply(&bytes[..], &place, 0).unwrap();
            merged(dir.path(), &lower, &upper)
        } else {
            apply(&bytes[..], &plain(&lower), 0).unwrap();
            describe(&lower, false)
        };
        let names: Vec<_> = seen.keys().map(|path| path.to_str().unwrap()).collect();
        let wanted = [
            "kept",
            "kept/g",
            "new",
            "opaque",
            "opaque/after",
            "opaque/before",
            "typed",
            "typed/mine",
        ];
        assert_eq!(names, wanted, "overlay: {overlay}");
        assert!(seen[Path::new("kept")].contains("40700 5:6"), "{seen:?}");
    }
}

/// What an overlay of two trees shows.
fn merged(dir: &Path, lower: &Path, upper: &Path) -> tree::Tree {
    let (work, point) = (dir.join("work"), dir.join("merged"));
    fs::create_dir_all(&work).unwrap();
    let mount = sys::mount::Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lower.display()),
        ],
    };
    sys::mount::mount_all(&[mount], &point).unwrap();
    let seen = describe(&point, false);
    sys::mount::unmount_recursive(&point).unwrap();
    seen
}

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

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
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

/// An archive with a little of everything, to be damaged.
fn sample() -> Vec<u8> {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SAMPLE
        .get_or_init(|| {
            let dir = TempDir::new().unwrap();
            let from = dir.path().join("from");
            fs::create_dir(&from).unwrap();
            rich_tree(&from);
            fs::write(from.join("folder/plain"), "short").unwrap();
            modern_tree(&from);
            attributes(&from);
            let mut bytes = Vec::new();
            for arguments in [
                &["--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"][..],
                &["--format=gnu", "--sparse"],
            ] {
                let archive = dir.path().join("archive");
                tar(arguments, &from, &archive);
                // Without its end, so that the other follows.
                let one = fs::read(&archive).unwrap();
                let end = one.iter().rposition(|byte| *byte != 0).unwrap() + 1;
                bytes.extend_from_slice(&one[..end.next_multiple_of(512)]);
            }
            bytes
        })
        .clone()
}

/// Sets the checksum of every block right that may be a header, so that what was damaged is read.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn damaged_archives_never_reach_out_of_their_target(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        names in prop::collection::vec((any::<prop::sample::Index>(), "[./a-c]{1,12}"), 0..6),
        length in any::<prop::sample::Index>(),
        mended in prop::bool::weighted(0.8),
    ) {
        let mut bytes = sample();
        let blocks = bytes.len() / 512;
        for (at, byte) in damage {
            bytes[at.index(blocks * 512)] = byte;
        }
        for (at, name) in names {
            let block = at.index(blocks) * 512;
            // The name, or where a link points to.
            let field = if name.len() % 2 == 0 { block } else { block + 157 };
            bytes[field..field + name.len()].copy_from_slice(name.as_bytes());
            bytes[field + name.len()] = 0;
        }
        if mended {
            mend(&mut bytes);
        } else {
            bytes.truncate(length.index(bytes.len()));
        }
        let (dir, target) = guarded();
        let before = describe(&dir.path().join("outside"), false);
        let applied = apply(&bytes[..], &plain(&target), 0);
        if applied.is_err() {
            prop_assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        }
        let after = describe(&dir.path().join("outside"), false);
        prop_assert_eq!(difference(&before, &after), Vec::<String>::new());
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
