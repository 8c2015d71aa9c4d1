//! An image imported and unpacked by Debian's `ctr`, beside containerd: the same trees, entry by
//! entry. Needs root.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "what cannot be set up ends a test"
)]

mod common;
#[path = "common/tree.rs"]
mod tree;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use common::{Bed, Shims, run};
use serde_json::json;
use sha2::{Digest, Sha256};
use tree::{Tree, describe, difference};

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn add(archive: &mut tar::Builder<File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, name, bytes).unwrap();
}

/// Writes an OCI image of these layers.
fn image(layers: &[(Vec<u8>, &str)], to: &Path) {
    let mut archive = tar::Builder::new(File::create(to).unwrap());
    add(
        &mut archive,
        "oci-layout",
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    );
    let mut put = |bytes: &[u8], media_type: &str| {
        let digest = digest(bytes);
        add(
            &mut archive,
            &digest.replace("sha256:", "blobs/sha256/"),
            bytes,
        );
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let mut descriptors = Vec::new();
    let mut ids = Vec::new();
    for (layer, compression) in layers {
        ids.push(digest(layer));
        let blob = match *compression {
            "+gzip" => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                gzip.write_all(layer).unwrap();
                gzip.finish().unwrap()
            }
            "+zstd" => zstd::encode_all(&layer[..], 3).unwrap(),
            _ => layer.clone(),
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{compression}");
        descriptors.push(put(&blob, &media_type));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let config = put(
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    );
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": descriptors,
    });
    let mut manifest = put(manifest.to_string().as_bytes(), manifest_type);
    manifest["annotations"] = json!({"io.containerd.image.name": "test.local/image:1"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    add(&mut archive, "index.json", index.to_string().as_bytes());
    archive.finish().unwrap();
}

fn packed(from: &Path, arguments: &[&str]) -> Vec<u8> {
    let to = from.with_extension("tar");
    let mut command = Command::new("tar");
    command
        .arg("-C")
        .arg(from)
        .arg("-cf")
        .arg(&to)
        .args(arguments);
    run(command.arg(".")).ok();
    fs::read(to).unwrap()
}

/// Three layers: one that is rich, one that hides and replaces, one that adds again.
fn layers(dir: &Path) -> Vec<(Vec<u8>, &'static str)> {
    let at = |name: &str| dir.join(name);
    for name in ["one/folder/deep", "one/opaque/old", "one/typed", "one/same"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for name in [
        "one/folder/a",
        "one/opaque/old/x",
        "one/opaque/y",
        "one/typed/z",
        "one/gone",
    ] {
        fs::write(at(name), name).unwrap();
    }
    fs::hard_link(at("one/folder/a"), at("one/linked")).unwrap();
    fs::write(at("one/setuid"), vec![1; 70_000]).unwrap();
    chown(at("one/setuid"), Some(1), Some(2)).unwrap();
    fs::set_permissions(at("one/setuid"), PermissionsExt::from_mode(0o6711)).unwrap();
    fs::set_permissions(at("one/same"), PermissionsExt::from_mode(0o1770)).unwrap();
    symlink("/folder", at("one/absolute")).unwrap();
    run(Command::new("mknod")
        .arg(at("one/device"))
        .args(["c", "1", "7"]))
    .ok();
    run(Command::new("mkfifo").arg(at("one/fifo"))).ok();
    let file = File::open(at("one/gone")).unwrap();
    sys::xattr::set(&file, "user.note".as_ref(), b"n").unwrap();
    fs::create_dir_all(at("two/opaque")).unwrap();
    fs::create_dir_all(at("two/folder")).unwrap();
    fs::write(at("two/opaque/.wh..wh..opq"), "").unwrap();
    fs::write(at("two/opaque/new"), "new").unwrap();
    fs::write(at("two/folder/.wh.deep"), "").unwrap();
    fs::write(at("two/.wh.gone"), "").unwrap();
    fs::write(at("two/typed"), "a file now").unwrap();
    fs::create_dir_all(at("three/folder/deep")).unwrap();
    fs::write(at("three/folder/deep/again"), "again").unwrap();
    fs::write(at("three").join("n".repeat(200)), "long").unwrap();
    let pax: &[&str] = &["--format=pax", "--xattrs", "--xattrs-include=user.*"];
    vec![
        (packed(&at("one"), pax), "+gzip"),
        (packed(&at("two"), &["--format=gnu"]), "+zstd"),
        (packed(&at("three"), &["--format=posix"]), ""),
    ]
}

/// Imports the image and describes what its view shows.
fn unpacked(bed: &Bed, image: &Path) -> Tree {
    bed.ctr(&["images", "import", image.to_str().unwrap()]).ok();
    let point = bed.dir.path().join("view");
    fs::create_dir(&point).unwrap();
    bed.ctr(&[
        "images",
        "mount",
        "test.local/image:1",
        point.to_str().unwrap(),
    ])
    .ok();
    let tree = describe(&point, false);
    bed.ctr(&["images", "unmount", "--rm", point.to_str().unwrap()])
        .ok();
    tree
}

#[test]
fn an_image_is_unpacked_as_containerd_unpacks_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    image(&layers(dir.path()), &file);
    let ours = Bed::new(Shims::Go);
    let here = unpacked(&ours, &file);
    let mut theirs = Bed::new(Shims::Go);
    theirs.kill();
    let containerd = theirs.containerd();
    let there = unpacked(&theirs, &file);
    drop(containerd);
    fs::remove_dir_all(theirs.dir.path().join("root")).unwrap();
    assert!(here.len() > 12, "{here:?}");
    assert_eq!(difference(&here, &there), Vec::<String>::new());
}

#[test]
fn an_image_runs_by_its_name_and_leaves_nothing_when_it_is_removed() {
    let bed = Bed::new(Shims::Ours);
    let base = bed.dir.path().join("one");
    fs::create_dir_all(base.join("bin")).unwrap();
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    symlink("busybox", base.join("bin/sh")).unwrap();
    let upper = bed.dir.path().join("two");
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join("note"), "from the second layer").unwrap();
    let file = bed.dir.path().join("image.tar");
    let layers = [
        (packed(&base, &[]), "+gzip"),
        (packed(&upper, &[]), "+zstd"),
    ];
    image(&layers, &file);
    bed.ctr(&["images", "import", file.to_str().unwrap()]).ok();
    let check = bed.ctr(&["images", "check"]).ok();
    assert!(
        check.contains("complete (3/3)") && check.contains("true"),
        "{check}"
    );

    let script = "/bin/busybox cat /note; exit 7";
    let name = "test.local/image:1";
    let ran = bed.ctr(&["run", "--rm", name, "c1", "/bin/sh", "-c", script]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(7), "from the second layer"),
        "{ran:?}"
    );

    bed.ctr(&["images", "rm", "--sync", name]).ok();
    assert_eq!(bed.ctr(&["content", "ls", "-q"]).ok(), "");
    assert_eq!(bed.ctr(&["snapshots", "ls"]).ok().lines().count(), 1);
    let root = bed.dir.path().join("root");
    for folder in [
        "io.containerd.content.v1.content/blobs/sha256",
        "io.containerd.content.v1.content/ingest",
        "io.containerd.snapshotter.v1.overlayfs/snapshots",
    ] {
        let left = fs::read_dir(root.join(folder)).unwrap().count();
        assert_eq!(left, 0, "{folder}");
    }
}
