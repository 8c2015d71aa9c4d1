//! Snapshots, driven with Debian's `ctr`: beside containerd, after a kill, and where overlays
//! cannot work. Needs root.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run programs and wait for them"
)]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "what cannot be set up ends a test"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Bed, Shims, eventually, quietly, run};

fn snapshots(bed: &Bed, snapshotter: &str) -> PathBuf {
    let name = format!("root/io.containerd.snapshotter.v1.{snapshotter}/snapshots");
    bed.dir.path().join(name)
}

/// The folders that a snapshotter has.
fn folders(bed: &Bed, snapshotter: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(snapshots(bed, snapshotter))
        .into_iter()
        .flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// What `ctr snapshots` says, without what differs from run to run: paths, times, and the words
/// before the class of an error.
fn said(bed: &Bed, snapshotter: &str, arguments: &str) -> String {
    let mut all = vec!["snapshots", "--snapshotter", snapshotter];
    all.extend(arguments.split(' '));
    let ran = bed.ctr(&all);
    if ran.code != Some(0) {
        let class = ran.stderr.trim().rsplit(": ").next().unwrap_or_default();
        return format!("refused: {class}");
    }
    let text = ran.stdout.replace(bed.dir.path().to_str().unwrap(), "DIR");
    let is_time = |word: &str| word.contains("T") && word.matches(':').count() > 1;
    text.split_whitespace()
        .map(|word| if is_time(word) { "TIME" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

const STEPS: &[&str] = &[
    "ls",
    "prepare --mounts a",
    "prepare a",
    "prepare b nothing",
    "view --mounts v",
    "mounts /x v",
    "commit base a",
    "commit base a",
    "info base",
    "info a",
    "prepare --mounts c base",
    "prepare d c",
    "view --mounts w base",
    "commit l2 c",
    "view --mounts w2 l2",
    "prepare --mounts e l2",
    "mounts /x e",
    "mounts /x l2",
    "commit base e",
    "rm base",
    "rm l2",
    "rm nothing",
    "label base z=1",
    "info base",
    "info e",
    "usage e",
    "usage l2",
    "usage nothing",
];

#[test]
fn every_call_is_answered_as_containerd_does() {
    for snapshotter in ["overlayfs", "native"] {
        let ours = Bed::new(Shims::Go);
        let mut theirs = Bed::new(Shims::Go);
        theirs.kill();
        let containerd = theirs.containerd();
        // What no lease holds their collector may take: each call is made with one of a day.
        for bed in [&ours, &theirs] {
            bed.ctr(&["leases", "create", "--id", "held", "-x", "24h"])
                .ok();
        }
        for step in STEPS {
            let (here, there) = (
                said(&ours, snapshotter, step),
                said(&theirs, snapshotter, step),
            );
            assert_eq!(here, there, "{snapshotter}: {step}");
        }
        let modes = |bed: &Bed| {
            let mut list = Command::new("find");
            list.arg(snapshots(bed, snapshotter));
            list.args(["-printf", "%P %M %U:%G\\n"]);
            let listing = run(&mut list).ok();
            listing.lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        assert_eq!(modes(&ours), modes(&theirs), "{snapshotter}");
        drop(containerd);
        // Drop wants a daemon there.
        fs::remove_dir_all(theirs.dir.path().join("root")).unwrap();
    }
}

#[test]
fn namespaces_and_snapshotters_do_not_see_one_another() {
    let bed = Bed::new(Shims::Go);
    bed.ctr(&["snapshots", "prepare", "a"]).ok();
    bed.ctr(&["snapshots", "--snapshotter", "native", "prepare", "a"])
        .ok();
    let other = |arguments: &[&str]| {
        let mut command = Command::new("ctr");
        command
            .arg("-a")
            .arg(bed.address())
            .args(["-n", "elsewhere", "snapshots"]);
        run(command.args(arguments))
    };
    other(&["prepare", "a"]).ok();
    assert_eq!(folders(&bed, "overlayfs").len(), 2);
    other(&["rm", "a"]).ok();
    assert!(other(&["info", "a"]).stderr.contains("not found"));
    bed.ctr(&["snapshots", "info", "a"]).ok();
    eventually("the folder is gone", || {
        folders(&bed, "overlayfs").len() == 1
    });
    assert_eq!(folders(&bed, "native").len(), 1);
    let unknown = bed.ctr(&["snapshots", "--snapshotter", "none", "prepare", "a"]);
    assert!(
        unknown.stderr.contains("snapshotter not loaded: none"),
        "{unknown:?}"
    );
    // A namespace with snapshots is not empty.
    let refused = bed.ctr(&["ns", "rm", &bed.namespace]);
    assert!(refused.stderr.contains("must be empty"), "{refused:?}");
}

#[test]
fn files_come_from_the_parent_and_stay_out_of_it() {
    for snapshotter in ["overlayfs", "native"] {
        let bed = Bed::new(Shims::Go);
        let ctr = |arguments: &[&str]| {
            let all = [&["snapshots", "--snapshotter", snapshotter], arguments].concat();
            bed.ctr(&all).ok()
        };
        let point = bed.dir.path().join("point");
        fs::create_dir(&point).unwrap();
        let mounted = |key: &str, work: &dyn Fn()| {
            let command = ctr(&["mounts", point.to_str().unwrap(), key]);
            run(Command::new("sh").arg("-c").arg(command)).ok();
            work();
            run(Command::new("umount").arg(&point)).ok();
        };
        ctr(&["prepare", "a"]);
        mounted("a", &|| {
            fs::write(point.join("one"), vec![1; 100_000]).unwrap();
            std::os::unix::fs::chown(&point, Some(77), Some(88)).unwrap();
        });
        ctr(&["commit", "base", "a"]);
        ctr(&["prepare", "b", "base"]);
        mounted("b", &|| {
            assert_eq!(fs::read(point.join("one")).unwrap().len(), 100_000);
            let owner = fs::metadata(&point).unwrap();
            assert_eq!(
                std::os::unix::fs::MetadataExt::uid(&owner),
                77,
                "{snapshotter}"
            );
            fs::remove_file(point.join("one")).unwrap();
            fs::write(point.join("two"), "2").unwrap();
        });
        ctr(&["view", "v", "base"]);
        mounted("v", &|| {
            assert!(point.join("one").exists() && !point.join("two").exists());
            assert!(
                fs::write(point.join("three"), "").is_err(),
                "a view is read-only"
            );
        });
        let usage = ctr(&["usage", "base"]);
        assert!(
            usage.contains("104.0 KiB") && usage.contains(" 2"),
            "{usage}"
        );
    }
}

#[test]
fn a_killed_daemon_leaves_nothing_half_done_and_no_folders() {
    let mut bed = Bed::new(Shims::Go);
    bed.ctr(&["snapshots", "prepare", "base-work"]).ok();
    bed.ctr(&["snapshots", "commit", "base", "base-work"]).ok();
    for round in 0..3 {
        let mut clients = Vec::new();
        for n in 0..12 {
            let key = format!("k{round}-{n}");
            let script = format!(
                "ctr=\"ctr -a {} -n {} snapshots\"; $ctr prepare {key} base && $ctr commit c{key} \
                 {key} && $ctr rm c{key}",
                bed.address().display(),
                bed.namespace
            );
            clients.push(quietly(Command::new("sh").arg("-c").arg(script)));
        }
        eventually("some are at work", || {
            folders(&bed, "overlayfs").len() > 3 + round
        });
        bed.kill();
        for mut client in clients {
            let _ = client.wait();
        }
        // What a daemon leaves that dies between making a folder and naming it.
        let stale = snapshots(&bed, "overlayfs").join("new-1-2-3");
        fs::create_dir_all(stale.join("fs/in")).unwrap();
        fs::create_dir_all(snapshots(&bed, "overlayfs").join("4711/fs")).unwrap();
        bed.start();
        let listed = bed.ctr(&["snapshots", "ls"]).ok();
        let known = listed.lines().count() - 1;
        eventually("only those with a record have a folder", || {
            folders(&bed, "overlayfs").len() == known
        });
        for line in listed.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            if words.last() == Some(&"Active") {
                let mounts = bed.ctr(&["snapshots", "mounts", "/x", words[0]]).ok();
                for path in mounts
                    .split(['=', ',', ':', ' '])
                    .filter(|p| p.contains("/fs"))
                {
                    assert!(Path::new(path.trim()).is_dir(), "{path} of {line}");
                }
            }
        }
    }
}

#[test]
fn where_overlays_cannot_work_the_reason_is_told_and_namespaces_name_native() {
    let mut bed = Bed::new(Shims::Go);
    bed.ctr(&["ns", "create", "own"]).ok();
    let own = "containerd.io/defaults/snapshotter=overlayfs";
    bed.ctr(&["ns", "label", "own", own]).ok();
    bed.ctr(&["ns", "create", "usual"]).ok();
    assert!(!bed.ctr(&["ns", "ls"]).ok().contains("native"));
    bed.kill();
    // A filesystem whose folders do not tell types.
    let image = bed.dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    run(Command::new("/sbin/mkfs.ext2")
        .args(["-q", "-F", "-O", "^filetype"])
        .arg(&image))
    .ok();
    let root = bed
        .dir
        .path()
        .join("root/io.containerd.snapshotter.v1.overlayfs");
    fs::create_dir_all(&root).unwrap();
    let _ = fs::remove_dir_all(root.join("snapshots"));
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(&root))
    .ok();
    bed.start();
    let namespaces = bed.ctr(&["ns", "ls"]).ok();
    let refused = bed.ctr(&["snapshots", "prepare", "a"]);
    let native = bed.ctr(&["snapshots", "--snapshotter", "native", "prepare", "a"]);
    let plugins = bed.ctr(&["plugins", "ls"]).ok();
    bed.kill();
    run(Command::new("umount").arg(&root)).ok();
    bed.start();
    let label = |name: &str, text: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once("snapshotter=")
            .map(|(_, value)| value.trim().to_owned())
    };
    assert_eq!(
        label("usual", &namespaces).as_deref(),
        Some("native"),
        "{namespaces}"
    );
    assert_eq!(
        label("own", &namespaces).as_deref(),
        Some("overlayfs"),
        "{namespaces}"
    );
    for word in ["snapshotter not loaded", "d_type", "ext2", "loop", "native"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    native.ok();
    let line = plugins
        .lines()
        .find(|line| line.contains("overlayfs"))
        .unwrap();
    assert!(line.contains("error"), "{line}");
    // Nothing of it was stored.
    let namespaces = bed.ctr(&["ns", "ls"]).ok();
    assert_eq!(label("usual", &namespaces), None, "{namespaces}");
    bed.ctr(&["snapshots", "prepare", "a"]).ok();
}
