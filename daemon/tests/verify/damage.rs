//! Damaged blobs and snapshots: each is found, named and mended from what is whole.

use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::common::run;
use crate::image::digest;
use crate::tree::difference;
use crate::{NAME, bed, blob, describe, flip, import, is_clean, small, snapshots, trees, verify};

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
