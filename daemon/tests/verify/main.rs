//! `wherryd verify`: every kind of damage is found and named, what can be mended from blobs is, and
//! a repair that is killed at any moment is finished by the next. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests run programs, and end where something is not as it must be"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/image.rs"]
mod image;
#[path = "../common/tree.rs"]
mod tree;

mod damage;
mod kills;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Bed, Ran, Shims, run};
use disk::Disk;
use image::{Image, Layer};
use tree::Tree;

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
