//! What kills leave, of the daemon and of a repair, and records that contradict each other.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use daemon::store::Store;
use daemon::store::audit::{Edit, Table};

use crate::common::eventually;
use crate::image::{Image, Layer, digest};
use crate::tree::difference;
use crate::{NAME, bed, blob, describe, import, is_clean, small, snapshots, trees, verify};

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
