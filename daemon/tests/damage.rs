//! Blobs that the disk has damaged, met by a daemon that serves: whoever reads or unpacks one is
//! told which it is, nothing half made stays, and a client that writes it again mends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;
#[path = "common/image.rs"]
mod image;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use api::{Peer, code, read_blob};
use common::{Bed, PATIENT, Shims};
use core_api::content::{
    Info, InfoRequest, InfoResponse, UpdateRequest, UpdateResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use core_api::diff::{ApplyRequest, ApplyResponse};
use core_api::snapshots::{PrepareSnapshotRequest, PrepareSnapshotResponse};
use core_api::types::Descriptor;
use image::{Image, Layer, digest, noise};
use tonic::{Code, Status};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// A daemon that collects nothing: what is made here is held by nobody.
fn bed() -> Bed {
    Bed::with_config(Shims::Ours, &format!("version = 2\n{PATIENT}"))
}

fn commit(data: &[u8], expects: bool) -> Vec<WriteContentRequest> {
    let total = i64::try_from(data.len()).unwrap();
    let stat = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: "r".to_owned(),
        expected: if expects { digest(data) } else { String::new() },
        total,
        ..WriteContentRequest::default()
    };
    let commit = WriteContentRequest {
        action: WriteAction::Commit.into(),
        expected: digest(data),
        data: data.to_vec(),
        labels: [("containerd.io/gc.root".to_owned(), "yes".to_owned())].into(),
        ..stat.clone()
    };
    vec![stat, commit]
}

/// Stores a blob, and answers the code of the end.
async fn store(peer: &Peer, data: &[u8], expects: bool) -> Code {
    let (_, end): (Vec<WriteContentResponse>, _) = peer
        .converse("content.v1.Content/Write", None, commit(data, expects))
        .await;
    code(&end)
}

fn path(bed: &Bed, digest: &str) -> PathBuf {
    let name = digest.replace("sha256:", "io.containerd.content.v1.content/blobs/sha256/");
    bed.root.join(name)
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
}

fn truncate(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(7).unwrap();
}

#[tokio::test]
async fn who_reads_a_damaged_blob_is_told_which_it_is() {
    let bed = bed();
    let peer = Peer::connect(&bed.address(), "damage").await;
    for size in [500, 3_000_000] {
        let data = noise(size as u64, size);
        let name = digest(&data);
        assert_eq!(store(&peer, &data, true).await, Code::Ok);
        assert!(read_blob(&peer, &name, 0).await.unwrap() == data);
        let is_told = |refusal: Status| {
            assert_eq!(refusal.code(), Code::DataLoss, "{refusal:?}");
            assert!(refusal.message().contains(&name), "{refusal:?}");
            assert!(refusal.message().contains("damaged"), "{refusal:?}");
        };
        flip(&path(&bed, &name), 400);
        is_told(read_blob(&peer, &name, 0).await.unwrap_err());
        truncate(&path(&bed, &name));
        is_told(read_blob(&peer, &name, 0).await.unwrap_err());
        is_told(read_blob(&peer, &name, 100).await.unwrap_err());
        fs::remove_file(path(&bed, &name)).unwrap();
        let refusal = read_blob(&peer, &name, 0).await.unwrap_err();
        assert_eq!(refusal.code(), Code::NotFound);
        assert!(refusal.message().contains(&name), "{refusal:?}");
    }
}

#[tokio::test]
async fn who_writes_a_damaged_blob_again_mends_it_and_its_labels_stay() {
    let bed = bed();
    let (one, two) = ("damage-one", "damage-two");
    let peer = Peer::connect(&bed.address(), one).await;
    let data = noise(9, 100_000);
    let name = digest(&data);
    assert_eq!(store(&peer, &data, true).await, Code::Ok);
    let label = UpdateRequest {
        info: Some(Info {
            digest: name.clone(),
            labels: [("mark".to_owned(), "kept".to_owned())].into(),
            ..Info::default()
        }),
        update_mask: Some(core_api::FieldMask {
            paths: vec!["labels.mark".to_owned()],
        }),
    };
    let _: UpdateResponse = peer.call("content.v1.Content/Update", label).await.unwrap();
    let file = path(&bed, &name);
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let cut: [(&str, Damage<'_>); 2] = [("removed", &remove), ("cut", &truncate)];
    for (what, damage) in cut {
        // The namespace that has it, and another that has not.
        for (namespace, expects) in [(one, true), (two, true), (one, false)] {
            damage(&file);
            let end = store(&peer.of(namespace), &data, expects).await;
            let is_ok = matches!(end, Code::Ok | Code::AlreadyExists);
            assert!(is_ok, "{what} {namespace} {expects}: {end:?}");
            let whole = fs::read(&file).is_ok_and(|found| found == data);
            assert!(whole, "{what} {namespace} {expects}: not mended");
        }
    }
    // Wrong bytes of the right number nobody sees, but who sends them all the same mends them.
    flip(&file, 50_000);
    store(&peer, &data, false).await;
    assert!(fs::read(&file).unwrap() == data);
    let info = InfoRequest {
        digest: name.clone(),
    };
    let info: InfoResponse = peer.call("content.v1.Content/Info", info).await.unwrap();
    assert_eq!(info.info.unwrap().labels["mark"], "kept");
    let ingests = bed.root.join("io.containerd.content.v1.content/ingest");
    assert_eq!(fs::read_dir(ingests).unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_layer_is_named_and_nothing_of_it_stays() {
    let bed = bed();
    let peer = Peer::connect(&bed.address(), "damage").await;
    let files = || Layer::default().files("many", 1, 30, 20_000);
    let image = Image::new("x", vec![files()]);
    let gzip = &image.layers[0];
    let tar = files().tar();
    let length = gzip.len() as u64;
    let middle = move |path: &Path| flip(path, length / 2);
    // The checksum at the end, which nobody needs who only wants the files.
    let end = move |path: &Path| flip(path, length - 6);
    let data = |path: &Path| flip(path, 70_000);
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, &[u8], &str, Damage<'_>); 5] = [
        ("middle", gzip, GZIP, &middle),
        ("end", gzip, GZIP, &end),
        ("cut", gzip, GZIP, &truncate),
        ("data", &tar, PLAIN, &data),
        ("cut", &tar, PLAIN, &truncate),
    ];
    for (number, (what, bytes, media_type, damage)) in cases.into_iter().enumerate() {
        store(&peer, bytes, false).await;
        let name = digest(bytes);
        damage(&path(&bed, &name));
        let prepare = PrepareSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: format!("k{number}"),
            ..PrepareSnapshotRequest::default()
        };
        let prepared: PrepareSnapshotResponse = peer
            .call("snapshots.v1.Snapshots/Prepare", prepare)
            .await
            .unwrap();
        let tree = PathBuf::from(&prepared.mounts[0].source);
        let apply = ApplyRequest {
            diff: Some(Descriptor {
                media_type: media_type.to_owned(),
                digest: name.clone(),
                size: i64::try_from(bytes.len()).unwrap(),
                ..Descriptor::default()
            }),
            mounts: prepared.mounts,
            ..ApplyRequest::default()
        };
        let applied: Result<ApplyResponse, Status> =
            peer.call("diff.v1.Diff/Apply", apply.clone()).await;
        let refusal = applied.expect_err(what);
        assert_eq!(refusal.code(), Code::DataLoss, "{what}: {refusal:?}");
        for word in [name.as_str(), "damaged", "wherryd verify"] {
            assert!(refusal.message().contains(word), "{what}: {refusal:?}");
        }
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 0, "{what}");
        // Written anew, it is unpacked.
        store(&peer, bytes, false).await;
        let applied: Result<ApplyResponse, Status> = peer.call("diff.v1.Diff/Apply", apply).await;
        let digest = applied.expect(what).applied.unwrap().digest;
        assert_eq!(digest, image::digest(&tar));
    }
}
