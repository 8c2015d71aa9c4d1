//! `wherryd verify`: every kind of damage is found and named, what can be mended from blobs is, and
//! a repair that is killed at any moment is finished by the next. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests run programs, and end where something is not as it must be"
)]

mod common;
#[path = "common/disk.rs"]
mod disk;
#[path = "common/image.rs"]
mod image;
#[path = "common/tree.rs"]
mod tree;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bed, Ran, Shims, eventually, run};
use daemon::store::Store;
use daemon::store::audit::{Edit, Table};
use disk::Disk;
use image::{Image, Layer, digest};
use tree::{Tree, difference};

/// A tree with everything but the times of the marks that hide something, which say nothing.
fn describe(root: &Path) -> Tree {
    let mut tree = tree::describe(root, true);
    for text in tree.values_mut() {
        if text.ends_with(" device 0") {
            *text = "hides".to_owned();
        }
    }
    tree
}

const NAME: &str = "example.org/verify:1";

/// A daemon whose root is in memory: repairs wait for the disk, which others use too.
fn bed() -> (Disk, Bed) {
    let disk = Disk::new(200 << 10);
    let mut bed = Bed::new(Shims::Ours);
    disk.serve(&mut bed);
    (disk, bed)
}

fn small() -> Image {
    let base = Layer::default()
        .folder("etc")
        .file("etc/passwd", b"root:x:0:0")
        .file("etc/long", &image::noise(1, 300_000))
        .link("etc/again", "etc/long")
        .symlink("etc/link", "passwd")
        .file("gone", b"soon")
        .folder("opaque")
        .file("opaque/old", b"old");
    // Without entries of their own folders would have the time of their unpacking.
    let upper = Layer::default()
        .folder("etc")
        .folder("opaque")
        .file("etc/passwd", b"other:x:0:0")
        .file(".wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .files("many", 3, 20, 1000);
    Image::new(NAME, vec![base, upper])
}

fn import(bed: &Bed, image: &Image, snapshotter: &str) {
    let archive = bed.dir.path().join("image.tar");
    image.write(&archive);
    let archive = archive.to_str().unwrap();
    bed.ctr(&["images", "import", "--snapshotter", snapshotter, archive])
        .ok();
}

fn verify(bed: &Bed, more: &[&str]) -> Ran {
    run(bed.command().arg("verify").args(more))
}

#[track_caller]
fn is_clean(bed: &Bed) {
    let ran = verify(bed, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
}

fn blob(bed: &Bed, digest: &str) -> PathBuf {
    let name = digest.replace("sha256:", "io.containerd.content.v1.content/blobs/sha256/");
    bed.root.join(name)
}

/// Changes one byte in the middle, and nothing else of a file.
fn flip(path: &Path) {
    let before = fs::metadata(path).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let at = before.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
}

fn snapshots(bed: &Bed, snapshotter: &str) -> PathBuf {
    bed.root.join(format!(
        "io.containerd.snapshotter.v1.{snapshotter}/snapshots"
    ))
}

/// The trees of an image's snapshots, the lowest first, found by their mounts.
fn trees(bed: &Bed, image: &Image, snapshotter: &str) -> Vec<PathBuf> {
    (0..image.tars.len())
        .map(|number| {
            let ctr = |words: &[&str]| {
                bed.ctr(&[&["snapshots", "--snapshotter", snapshotter], words].concat())
            };
            let chain = image.chain(number);
            ctr(&["prepare", "look", &chain]).ok();
            ctr(&["view", "look2", &chain]).ok();
            let shown = ctr(&["mounts", "/x", "look2"]).ok();
            ctr(&["rm", "look"]).ok();
            ctr(&["rm", "look2"]).ok();
            let path = shown
                .split([' ', '=', ',', ':'])
                .find(|word| word.contains("/snapshots/"))
                .unwrap();
            PathBuf::from(path.trim())
        })
        .collect()
}

#[test]
fn what_is_whole_has_no_findings_and_a_running_daemon_is_named() {
    let (_disk, mut bed) = bed();
    for snapshotter in ["overlayfs", "native"] {
        import(&bed, &small(), snapshotter);
    }
    bed.ctr(&["run", "-d", "--rootfs", &bed.rootfs(), "c", "/bin/sh"])
        .ok();
    let refused = verify(&bed, &[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for word in [bed.root.to_str().unwrap(), "in use", "stop it"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    bed.stop();
    is_clean(&bed);
    let ran = verify(&bed, &["--repair"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
    assert!(
        ran.stderr.contains("5 blobs, 4 snapshots, 1 images"),
        "{ran:?}"
    );
    let elsewhere = bed.dir.path().join("nothing");
    let refused = run(bed.command().arg("--root").arg(&elsewhere).arg("verify"));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("no records"), "{refused:?}");
    assert!(!elsewhere.exists());
    assert_eq!(verify(&bed, &["--nonsense"]).code, Some(2));
}

#[test]
fn a_damaged_blob_is_named_with_its_image_and_comes_back_with_the_next_pull() {
    let image = small();
    let (layer, manifest) = (digest(&image.layers[0]), digest(&image.manifest));
    let truncate = |path: &Path| {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(100)
            .unwrap();
    };
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage<'_>); 3] = [
        ("flip", &flip),
        ("truncate", &truncate),
        ("remove", &remove),
    ];
    let (_disk, mut bed) = bed();
    for (name, damage) in damages {
        for target in [&layer, &manifest] {
            import(&bed, &image, "overlayfs");
            bed.stop();
            is_clean(&bed);
            damage(&blob(&bed, target));
            let found = verify(&bed, &[]);
            assert_eq!(found.code, Some(1), "{name}: {found:?}");
            for word in [target.as_str(), NAME, "pull again"] {
                assert!(found.stdout.contains(word), "{name}: {word}: {found:?}");
            }
            let repaired = verify(&bed, &["--repair"]);
            assert_eq!(repaired.code, Some(1), "{name}: {repaired:?}");
            assert!(!blob(&bed, target).exists(), "{name}");
            // A client that pulls is not told that it is there.
            bed.start();
            import(&bed, &image, "overlayfs");
            bed.stop();
            is_clean(&bed);
            bed.start();
        }
    }
}

/// The path that the finding must name, and what is done to the trees of the two layers.
type Damage = (&'static str, fn(&Path, &Path));

/// Ways to damage the trees of [`small`].
fn damages() -> Vec<Damage> {
    vec![
        ("etc/long", |base, _| {
            let file = File::options().write(true).open(base.join("etc/long"));
            file.unwrap().set_len(0).unwrap();
        }),
        ("etc/long", |base, _| flip(&base.join("etc/long"))),
        ("etc/passwd", |base, _| {
            fs::remove_file(base.join("etc/passwd")).unwrap();
        }),
        ("etc/passwd", |_, top| {
            std::os::unix::fs::chown(top.join("etc/passwd"), Some(1), Some(8)).unwrap();
        }),
        ("etc/again", |base, _| {
            fs::remove_file(base.join("etc/again")).unwrap();
            fs::copy(base.join("etc/long"), base.join("etc/again")).unwrap();
        }),
        ("etc/link", |base, _| {
            fs::remove_file(base.join("etc/link")).unwrap();
            fs::write(base.join("etc/link"), "").unwrap();
        }),
        ("extra", |base, _| {
            fs::write(base.join("extra"), "").unwrap()
        }),
        ("many", |_, top| {
            for entry in fs::read_dir(top.join("many")).unwrap() {
                fs::write(entry.unwrap().path(), "").unwrap();
            }
        }),
        ("etc", |base, _| {
            for entry in fs::read_dir(base).unwrap() {
                let path = entry.unwrap().path();
                fs::remove_dir_all(&path)
                    .or_else(|_| fs::remove_file(&path))
                    .unwrap();
            }
        }),
        ("is not there", |_, top| fs::remove_dir_all(top).unwrap()),
        ("is not there", |_, top| {
            let folder = if top.ends_with("fs") {
                top.parent().unwrap()
            } else {
                top
            };
            fs::remove_dir_all(folder).unwrap();
        }),
    ]
}

#[test]
fn a_damaged_snapshot_is_made_anew_from_its_layer() {
    for snapshotter in ["overlayfs", "native"] {
        let image = small();
        let (_disk, mut bed) = bed();
        import(&bed, &image, snapshotter);
        let [base, top] = trees(&bed, &image, snapshotter).try_into().unwrap();
        bed.stop();
        let whole = [&base, &top].map(|tree| describe(tree));
        for (number, (named, damage)) in damages().into_iter().enumerate() {
            damage(&base, &top);
            let found = verify(&bed, &[]);
            let told = format!("{snapshotter} {number}: {found:?}");
            assert_eq!(found.code, Some(1), "{told}");
            assert!(found.stdout.contains(named), "{told}");
            assert!(found.stdout.contains("--repair makes it anew"), "{told}");
            let repaired = verify(&bed, &["--repair"]);
            assert_eq!(
                repaired.code,
                Some(0),
                "{snapshotter} {number}: {repaired:?}"
            );
            for (tree, before) in [&base, &top].into_iter().zip(&whole) {
                let after = describe(tree);
                let differ = difference(before, &after);
                assert!(differ.is_empty(), "{snapshotter} {number}: {differ:#?}");
            }
            is_clean(&bed);
        }
        bed.start();
        let usage = bed.ctr(&["snapshots", "--snapshotter", snapshotter, "usage"]);
        assert_eq!(usage.ok().lines().count(), 3);
    }
}

#[test]
fn a_copy_that_lost_or_changed_what_the_parent_has_is_made_anew() {
    let image = small();
    let (_disk, mut bed) = bed();
    import(&bed, &image, "native");
    let [_, top] = trees(&bed, &image, "native").try_into().unwrap();
    bed.stop();
    let whole = describe(&top);
    let lost = |top: &Path| fs::remove_file(top.join("etc/link")).unwrap();
    let changed = |top: &Path| flip(&top.join("etc/long"));
    let more = |top: &Path| fs::write(top.join("etc/more"), "").unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage<'_>); 3] = [
        ("etc/link", &lost),
        ("etc/again", &changed),
        ("etc/more", &more),
    ];
    for (named, damage) in damages {
        damage(&top);
        let found = verify(&bed, &[]);
        assert!(found.stdout.contains(named), "{found:?}");
        verify(&bed, &["--repair"]).ok();
        let after = describe(&top);
        let differ = difference(&whole, &after);
        assert!(differ.is_empty(), "{differ:#?}");
        is_clean(&bed);
    }
}

#[test]
fn a_damaged_snapshot_without_its_layer_is_forgotten_unless_a_container_stands_on_it() {
    let image = small();
    let (_disk, mut bed) = bed();
    import(&bed, &image, "overlayfs");
    let [base, _] = trees(&bed, &image, "overlayfs").try_into().unwrap();
    bed.ctr(&["snapshots", "prepare", "mine", &image.chain(1)])
        .ok();
    bed.stop();
    let layer = digest(&image.layers[0]);
    fs::remove_file(blob(&bed, &layer)).unwrap();
    fs::remove_dir_all(base.join("etc")).unwrap();
    let found = verify(&bed, &["--repair"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    for word in [
        "overlayfs/mine",
        "pull again",
        NAME,
        "verify --repair again",
    ] {
        assert!(found.stdout.contains(word), "{word}: {found:?}");
    }
    bed.start();
    bed.ctr(&["snapshots", "rm", "mine"]).ok();
    bed.stop();
    let found = verify(&bed, &["--repair"]);
    // The blob is missing still.
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.stdout.contains("forgotten, 2 with"), "{found:?}");
    assert_eq!(
        fs::read_dir(snapshots(&bed, "overlayfs")).unwrap().count(),
        0
    );
    bed.start();
    import(&bed, &image, "overlayfs");
    bed.stop();
    is_clean(&bed);
}

#[test]
fn what_is_mounted_is_not_replaced() {
    let image = small();
    let (_disk, mut bed) = bed();
    import(&bed, &image, "overlayfs");
    let [base, top] = trees(&bed, &image, "overlayfs").try_into().unwrap();
    bed.stop();
    let point = bed.dir.path().join("point");
    fs::create_dir(&point).unwrap();
    let options = format!("lowerdir={}:{}", top.display(), base.display());
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "-o", &options, "overlay"]);
    run(mount.arg(&point)).ok();
    fs::write(base.join("etc/passwd"), "").unwrap();
    let before = fs::metadata(&base).unwrap().ino();
    let found = verify(&bed, &["--repair"]);
    let after = fs::metadata(&base).unwrap().ino();
    run(Command::new("umount").arg(&point)).ok();
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.stdout.contains(point.to_str().unwrap()), "{found:?}");
    assert_eq!(before, after);
    verify(&bed, &["--repair"]).ok();
    is_clean(&bed);
}

#[test]
fn what_a_kill_leaves_is_harmless_and_removed() {
    let (_disk, mut bed) = bed();
    import(&bed, &small(), "overlayfs");
    bed.stop();
    let content = bed.root.join("io.containerd.content.v1.content");
    let folders = snapshots(&bed, "overlayfs");
    let leave = || {
        fs::create_dir_all(folders.join("new-1-2-3/fs/in")).unwrap();
        fs::create_dir_all(folders.join("4711/fs")).unwrap();
        fs::create_dir_all(content.join("ingest/abc")).unwrap();
        let half = content.join("ingest/def");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("namespace"), "x").unwrap();
        fs::write(blob(&bed, &digest(b"stray")), "stray").unwrap();
    };
    leave();
    let found = verify(&bed, &[]);
    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(found.stdout.matches("note: ").count(), 5, "{found:?}");
    let json = verify(&bed, &["--format", "json"]).ok();
    for line in json.lines() {
        let finding: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(finding["grade"], "note");
    }
    assert_eq!(json.lines().count(), 5);
    verify(&bed, &["--repair"]).ok();
    is_clean(&bed);
    // As they say: the daemon does it itself.
    leave();
    bed.start();
    eventually("the daemon has removed it", || {
        !folders.join("4711").exists()
            && !folders.join("new-1-2-3").exists()
            && !blob(&bed, &digest(b"stray")).exists()
    });
    bed.stop();
    is_clean(&bed);
}

#[test]
fn records_that_contradict_each_other_are_mended() {
    let image = small();
    let (_disk, mut bed) = bed();
    import(&bed, &image, "overlayfs");
    bed.stop();
    let ns = bed.namespace.clone();
    let edit = |edits: Vec<Edit>| {
        let store = Store::open(&bed.root.join("io.wherry.metadata.v1/meta.redb")).unwrap();
        store.edit(edits).unwrap();
    };
    let layer = digest(&image.layers[0]);
    let child = format!("{ns}\0overlayfs\0{}\0{}", image.chain(0), image.chain(1));
    for (edits, named) in [
        (
            vec![Edit::remove(Table::Namespaces, ns.as_str())],
            "namespace",
        ),
        (
            vec![Edit::remove(Table::Blobs, layer.as_str())],
            "whole with",
        ),
        (
            vec![Edit::put(Table::Blobs, layer.as_str(), vec![1; 8])],
            "whole with",
        ),
        (
            vec![Edit::remove(Table::Children, child.as_str())],
            "snapshots",
        ),
        (vec![Edit::remove(Table::Numbers, "overlayfs")], "snapshots"),
        (
            vec![Edit::put(
                Table::Resources,
                format!("{ns}\0l\0content\0x"),
                vec![],
            )],
            "lease l",
        ),
        (
            vec![Edit::put(
                Table::Blobs,
                digest(b"no"),
                vec![2, 0, 0, 0, 0, 0, 0, 0],
            )],
            "no namespace knows it",
        ),
        (
            vec![Edit::put(Table::Leases, format!("{ns}\0m"), vec![0xff; 9])],
            "cannot be read",
        ),
    ] {
        edit(edits);
        let found = verify(&bed, &[]);
        assert_eq!(found.code, Some(1), "{named}: {found:?}");
        assert!(found.stdout.contains(named), "{named}: {found:?}");
        verify(&bed, &["--repair"]).ok();
        is_clean(&bed);
    }
    // Without its parent nothing of a snapshot is left to save.
    let parent = format!("{ns}\0overlayfs\0{}", image.chain(0));
    edit(vec![Edit::remove(Table::Snapshots, parent)]);
    let found = verify(&bed, &["--repair"]);
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(found.stdout.contains("forgotten"), "{found:?}");
    // What an image needs and is not there in its namespace is named.
    edit(vec![Edit::remove(Table::Content, format!("{ns}\0{layer}"))]);
    let found = verify(&bed, &["--repair"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.stdout.contains("incomplete: layer"), "{found:?}");
    bed.start();
    import(&bed, &image, "overlayfs");
    bed.stop();
    is_clean(&bed);
}

#[test]
fn a_repair_that_is_killed_is_finished_by_the_next() {
    let layers = (0..3).map(|n| Layer::default().files(&format!("d{n}"), n, 80, 3000));
    let image = Image::new(NAME, layers.collect());
    for snapshotter in ["overlayfs", "native"] {
        let (_disk, mut bed) = bed();
        import(&bed, &image, snapshotter);
        let trees = trees(&bed, &image, snapshotter);
        bed.stop();
        let whole: Vec<_> = trees.iter().map(|tree| describe(tree)).collect();
        let (start, growth) = match std::env::var_os("WHERRY_SLOW") {
            Some(_) => (1, 1.1),
            None => (4, 1.5),
        };
        let mut after = Duration::from_millis(start);
        let mut killed = 0;
        loop {
            for (number, tree) in trees.iter().enumerate() {
                fs::write(tree.join(format!("d{number}/f{number}")), "").unwrap();
            }
            fs::create_dir_all(snapshots(&bed, snapshotter).join("4711/fs")).unwrap();
            let mut command = bed.command();
            command.args(["verify", "--repair"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut repair = command.spawn().unwrap();
            let deadline = Instant::now() + after;
            while Instant::now() < deadline && repair.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            let ended = repair.try_wait().unwrap();
            let _ = repair.kill();
            let _ = repair.wait();
            if ended.is_none() {
                killed += 1;
            }
            let second = verify(&bed, &["--repair"]);
            assert_eq!(second.code, Some(0), "{snapshotter} {after:?}: {second:?}");
            is_clean(&bed);
            for (tree, before) in trees.iter().zip(&whole) {
                assert!(difference(before, &describe(tree)).is_empty());
            }
            if ended.is_some() {
                break;
            }
            after = after.mul_f64(growth);
        }
        assert!(killed > 2, "it was too fast to be killed: {killed}");
    }
}
