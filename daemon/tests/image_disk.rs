//! A full disk, met by each call that stores something of an image: the error is `ResourceExhausted`
//! and names a path, nothing half made is left, and with room everything works. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;
#[path = "common/disk.rs"]
mod disk;
#[path = "common/image.rs"]
mod image;

use std::fs;
use std::path::PathBuf;

use api::Peer;
use common::{Bed, Shims, run};
use core_api::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use core_api::diff::{ApplyRequest, ApplyResponse};
use core_api::images::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, Image as Record,
};
use core_api::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
};
use core_api::types::{Descriptor, Mount};
use disk::Disk;
use image::{Image, Layer, digest, noise};
use tonic::{Code, Status};

const ROOT: (&str, &str) = ("containerd.io/gc.root", "yes");

fn labels() -> std::collections::BTreeMap<String, String> {
    [(ROOT.0.to_owned(), ROOT.1.to_owned())].into()
}

struct Full {
    disk: Disk,
    peer: Peer,
    /// What is refused by a full disk; the others happen to need no room.
    refused: Vec<String>,
}

impl Full {
    /// Whether a call on a full disk was refused, which must be for the right reason.
    #[track_caller]
    fn is_refused<T: std::fmt::Debug>(&mut self, what: &str, answer: Result<T, Status>) -> bool {
        let Err(refusal) = answer else {
            eprintln!("{what}: needs no room");
            return false;
        };
        assert_eq!(
            refusal.code(),
            Code::ResourceExhausted,
            "{what}: {refusal:?}"
        );
        let root = self.disk.path.to_str().unwrap();
        assert!(refusal.message().contains(root), "{what}: {refusal:?}");
        eprintln!("{what}: {}", refusal.message());
        self.refused.push(what.to_owned());
        true
    }

    /// Sends `data` in pieces, and answers at which offset the daemon began.
    async fn upload(&self, data: &[u8], stop_at: Option<usize>) -> Result<i64, Status> {
        let base = WriteContentRequest {
            r#ref: "upload".to_owned(),
            total: i64::try_from(data.len()).unwrap(),
            ..WriteContentRequest::default()
        };
        let stat = WriteContentRequest {
            action: WriteAction::Stat.into(),
            ..base.clone()
        };
        let (answers, end): (Vec<WriteContentResponse>, _) = self
            .peer
            .converse("content.v1.Content/Write", None, vec![stat.clone()])
            .await;
        end?;
        let begun = answers[0].offset;
        let mut messages = vec![stat];
        let mut at = usize::try_from(begun).unwrap();
        while at < data.len() && stop_at.is_none_or(|stop| at < stop) {
            let end = (at + (32 << 10)).min(data.len());
            messages.push(WriteContentRequest {
                action: WriteAction::Write.into(),
                offset: i64::try_from(at).unwrap(),
                data: data[at..end].to_vec(),
                ..base.clone()
            });
            at = end;
        }
        if stop_at.is_none() {
            messages.push(WriteContentRequest {
                action: WriteAction::Commit.into(),
                offset: base.total,
                expected: digest(data),
                labels: labels(),
                ..base
            });
        }
        let (_, end): (Vec<WriteContentResponse>, _) = self
            .peer
            .converse("content.v1.Content/Write", None, messages)
            .await;
        match end {
            Err(refusal) if refusal.code() == Code::AlreadyExists => Ok(begun),
            end => end.map(|()| begun),
        }
    }

    async fn prepare(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
    ) -> Result<Vec<Mount>, Status> {
        let request = PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels(),
        };
        let prepared: PrepareSnapshotResponse = self
            .peer
            .call("snapshots.v1.Snapshots/Prepare", request)
            .await?;
        Ok(prepared.mounts)
    }

    async fn apply(&self, layer: &[u8], mounts: Vec<Mount>) -> Result<ApplyResponse, Status> {
        let diff = Some(Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            digest: digest(layer),
            size: i64::try_from(layer.len()).unwrap(),
            ..Descriptor::default()
        });
        let request = ApplyRequest {
            diff,
            mounts,
            ..ApplyRequest::default()
        };
        self.peer.call("diff.v1.Diff/Apply", request).await
    }

    async fn commit(&self, snapshotter: &str, key: &str, name: &str) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: labels(),
        };
        self.peer
            .call("snapshots.v1.Snapshots/Commit", request)
            .await
    }

    async fn remove(&self, snapshotter: &str, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        };
        self.peer
            .call("snapshots.v1.Snapshots/Remove", request)
            .await
    }

    async fn image(&self, name: &str) -> Result<CreateImageResponse, Status> {
        let image = Some(Record {
            name: name.to_owned(),
            // Long, so that it needs room.
            labels: (0..40)
                .map(|n| (format!("l{n}"), "x".repeat(4000)))
                .collect(),
            target: Some(Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: digest(b"nothing"),
                size: 7,
                ..Descriptor::default()
            }),
            ..Record::default()
        });
        let request = CreateImageRequest {
            image,
            ..CreateImageRequest::default()
        };
        self.peer.call("images.v1.Images/Create", request).await
    }

    async fn remove_image(&self, name: &str) -> Result<(), Status> {
        let request = DeleteImageRequest {
            name: name.to_owned(),
            sync: true,
            ..DeleteImageRequest::default()
        };
        self.peer.call("images.v1.Images/Delete", request).await
    }
}

#[tokio::test]
async fn a_full_disk_refuses_each_step_of_an_image_and_with_room_each_works() {
    let disk = Disk::new(12 << 10);
    // With next to no reserve, so that it is the disk that refuses.
    let config = "version = 2\n[plugins.\"io.wherry.diff.v1\"]\nunpack_reserve = 1\n";
    let mut bed = Bed::with_config(Shims::Ours, config);
    disk.serve(&mut bed);
    let peer = Peer::connect(&bed.address(), "full").await.without_limit();
    let mut full = Full {
        disk,
        peer,
        refused: Vec::new(),
    };
    let image = Image::new("x", vec![Layer::default().files("many", 1, 10, 20_000)]);
    let layer = &image.layers[0];

    // An upload stops where the room ends, and goes on from there.
    full.upload(layer, Some(64 << 10)).await.unwrap();
    full.disk.fill();
    let refused = full.upload(layer, None).await;
    assert!(full.is_refused("upload", refused));
    full.disk.free();
    let begun = full.upload(layer, None).await.unwrap();
    assert!(begun >= 64 << 10, "{begun}");

    // Data that is there already, and only is to become a blob.
    let data = noise(7, 50_000);
    full.upload(&data, Some(data.len())).await.unwrap();
    full.disk.fill();
    let refused = full.upload(&data, None).await;
    full.is_refused("commit of an upload", refused);
    full.disk.free();
    full.upload(&data, None).await.unwrap();

    for snapshotter in ["overlayfs", "native"] {
        let what = |name: &str| format!("{name} {snapshotter}");
        full.disk.fill();
        let refused = full.prepare(snapshotter, "a", "").await;
        let refused = full.is_refused(&what("prepare"), refused);
        full.disk.free();
        if !refused {
            full.remove(snapshotter, "a").await.unwrap();
        }
        let mounts = full.prepare(snapshotter, "a", "").await.unwrap();
        let tree = PathBuf::from(&mounts[0].source);

        full.disk.fill();
        let refused = full.apply(layer, mounts.clone()).await;
        assert!(full.is_refused(&what("unpack"), refused));
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 0);
        full.disk.free();
        full.apply(layer, mounts).await.unwrap();

        full.disk.fill();
        let refused = full.commit(snapshotter, "a", &image.chain(0)).await;
        let refused = full.is_refused(&what("commit"), refused);
        full.disk.free();
        if refused {
            full.commit(snapshotter, "a", &image.chain(0))
                .await
                .unwrap();
        }

        full.disk.fill();
        let refused = full.prepare(snapshotter, "b", &image.chain(0)).await;
        let refused = full.is_refused(&what("prepare on a parent"), refused);
        full.disk.free();
        if !refused {
            full.remove(snapshotter, "b").await.unwrap();
        }
        full.prepare(snapshotter, "b", &image.chain(0))
            .await
            .unwrap();
        full.disk.fill();
        let refused = full.remove(snapshotter, "b").await;
        let refused = full.is_refused(&what("remove"), refused);
        full.disk.free();
        if refused {
            full.remove(snapshotter, "b").await.unwrap();
        }
    }

    full.image("held").await.unwrap();
    full.disk.fill();
    let removed = full.remove_image("held").await;
    let refused = full.is_refused("collection", removed);
    full.disk.free();
    if refused {
        // It may be gone already, and only the collection was refused.
        let removed = full.remove_image("held").await;
        assert!(removed.is_ok() || full.image("held").await.is_ok());
    }

    full.disk.fill();
    let mut made = Vec::new();
    let mut stopped = false;
    for n in 0..200 {
        let name = format!("i{n}");
        let created = full.image(&name).await;
        if created.is_err() && full.is_refused("image", created) {
            stopped = true;
            break;
        }
        made.push(name);
    }
    assert!(stopped, "it is never full");
    full.disk.free();
    full.image("last").await.unwrap();
    full.remove_image("last").await.unwrap();
    for name in made {
        full.remove_image(&name).await.unwrap();
    }
    bed.stop();
    let found = run(bed.command().arg("verify"));
    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(found.stdout, "", "{found:?}");
    eprintln!("refused: {:?}", full.refused);
    bed.start();
}
