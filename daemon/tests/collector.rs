//! The collector beside clients that write: what they refer to stays, whatever moment it runs in,
//! and what has expired or is held by nothing goes. Raw clients. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Peer, code, read_blob};
use common::{Bed, Shims, eventually};
use core_api::FieldMask;
use core_api::content::{
    Info, InfoRequest, InfoResponse, UpdateRequest, UpdateResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use core_api::images::{
    CreateImageRequest, CreateImageResponse, Image, ListImagesRequest, ListImagesResponse,
};
use core_api::leases::{CreateRequest, CreateResponse, DeleteRequest, ListRequest, ListResponse};
use core_api::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    StatSnapshotRequest, StatSnapshotResponse,
};
use core_api::types::Descriptor;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

type Labels = BTreeMap<String, String>;

fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned =
        |(key, value): &(&str, &str)| (format!("containerd.io/gc.{key}"), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

async fn lease(peer: &Peer, id: &str, labels: Labels) {
    let request = CreateRequest {
        id: id.to_owned(),
        labels,
    };
    let made: Result<CreateResponse, _> = peer.call("leases.v1.Leases/Create", request).await;
    made.unwrap();
}

async fn release(peer: &Peer, id: &str, sync: bool) {
    let request = DeleteRequest {
        id: id.to_owned(),
        sync,
    };
    let gone: Result<(), _> = peer.call("leases.v1.Leases/Delete", request).await;
    gone.unwrap();
}

/// Collects, and returns when that is done.
async fn collect(peer: &Peer) {
    lease(peer, "nothing", Labels::new()).await;
    release(peer, "nothing", true).await;
}

/// Stores a blob and answers its digest.
async fn write(peer: &Peer, text: &str, labels: Labels) -> String {
    let request = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: text.to_owned(),
        data: text.as_bytes().to_vec(),
        labels,
        ..WriteContentRequest::default()
    };
    let (_, end): (Vec<WriteContentResponse>, _) = peer
        .converse("content.v1.Content/Write", None, vec![request])
        .await;
    end.unwrap();
    digest(text.as_bytes())
}

async fn label(peer: &Peer, digest: &str, key: &str, value: &str) {
    let key = format!("containerd.io/gc.{key}");
    let request = UpdateRequest {
        update_mask: Some(FieldMask {
            paths: vec![format!("labels.{key}")],
        }),
        info: Some(Info {
            digest: digest.to_owned(),
            labels: [(key, value.to_owned())].into(),
            ..Info::default()
        }),
    };
    let changed: Result<UpdateResponse, _> = peer.call("content.v1.Content/Update", request).await;
    changed.unwrap();
}

async fn has(peer: &Peer, digest: &str) -> bool {
    let request = InfoRequest {
        digest: digest.to_owned(),
    };
    let found: Result<InfoResponse, _> = peer.call("content.v1.Content/Info", request).await;
    found.is_ok()
}

fn files(bed: &Bed, folder: &str) -> usize {
    let folder = bed.dir.path().join("root").join(folder);
    fs::read_dir(folder).map_or(0, Iterator::count)
}

const BLOBS: &str = "io.containerd.content.v1.content/blobs/sha256";
const SNAPSHOTS: &str = "io.containerd.snapshotter.v1.overlayfs/snapshots";

async fn ready(bed: &Bed) -> Peer {
    eventually("the collector is ready", || {
        bed.log().contains("collector ready")
    });
    Peer::connect(&bed.address(), &bed.namespace)
        .await
        .without_limit()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_referred_to_while_the_collector_runs_stays() {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 12;
    let bed = Bed::new(Shims::Ours);
    let peer = ready(&bed).await;
    let root = write(&peer, "root", labels(&[("root", "yes")])).await;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (peer, root) = (peer.clone(), root.clone());
        writers.push(tokio::spawn(async move {
            let mut kept = Vec::new();
            for round in 0..ROUNDS {
                let id = format!("{writer}-{round}");
                lease(&peer, &id, Labels::new()).await;
                let blob = write(&peer.under(&id), &format!("blob {id}"), Labels::new()).await;
                label(&peer, &root, &format!("ref.content.{id}"), &blob).await;
                release(&peer, &id, false).await;
                assert!(has(&peer, &blob).await, "{id}");
                assert_eq!(
                    read_blob(&peer, &blob, 0).await.unwrap().len(),
                    5 + id.len()
                );
                // Without the lease it may go in between, but never half: either the reference
                // came in time, or the blob is not there at all.
                let loose = format!("loose {id}");
                let blob_of_nobody = write(&peer, &loose, Labels::new()).await;
                match read_blob(&peer, &blob_of_nobody, 0).await {
                    Ok(data) => assert_eq!(data, loose.as_bytes()),
                    Err(refusal) => assert_eq!(refusal.code(), Code::NotFound),
                }
                kept.push(blob);
            }
            kept
        }));
    }
    let done = Arc::new(AtomicBool::new(false));
    let collecting = {
        let (peer, done) = (peer.of("collecting"), done.clone());
        tokio::spawn(async move {
            let mut times = 0;
            while !done.load(Ordering::Acquire) {
                collect(&peer).await;
                times += 1;
            }
            times
        })
    };
    let mut kept = Vec::new();
    for writer in writers {
        kept.extend(writer.await.unwrap());
    }
    done.store(true, Ordering::Release);
    assert!(collecting.await.unwrap() > 2);
    collect(&peer).await;
    for blob in &kept {
        assert!(has(&peer, blob).await);
    }
    assert_eq!(files(&bed, BLOBS), kept.len() + 1);
    label(&peer, &root, "root", "").await;
    collect(&peer).await;
    assert_eq!(files(&bed, BLOBS), 0);
}

async fn snapshot<A, R>(peer: &Peer, method: &str, request: A) -> Result<R, Status>
where
    A: prost::Message + 'static,
    R: prost::Message + Default + 'static,
{
    peer.call(&format!("snapshots.v1.Snapshots/{method}"), request)
        .await
}

async fn prepare(
    peer: &Peer,
    key: &str,
    parent: &str,
    labels: Labels,
) -> Result<PrepareSnapshotResponse, Status> {
    let request = PrepareSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels,
    };
    snapshot(peer, "Prepare", request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_being_collected_is_there_or_refused() {
    let bed = Bed::new(Shims::Ours);
    let peer = ready(&bed).await;
    let root = || labels(&[("root", "yes")]);
    let (mut held, mut refused) = (0, 0);
    for round in 0..24 {
        lease(&peer, "making", Labels::new()).await;
        let making = peer.under("making");
        prepare(&making, "work", "", Labels::new()).await.unwrap();
        let request = CommitSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            name: "base".to_owned(),
            key: "work".to_owned(),
            labels: Labels::new(),
        };
        snapshot::<_, ()>(&making, "Commit", request).await.unwrap();
        // From here on nothing holds it, and both try at once.
        let releasing = {
            let peer = peer.clone();
            tokio::spawn(async move { release(&peer, "making", true).await })
        };
        for _ in 0..round % 6 {
            tokio::task::yield_now().await;
        }
        let made = prepare(&peer, "top", "base", root()).await;
        releasing.await.unwrap();
        let remove = |key: &str| RemoveSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: key.to_owned(),
        };
        let request = StatSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: "base".to_owned(),
        };
        let base: Result<StatSnapshotResponse, _> = snapshot(&peer, "Stat", request).await;
        match made {
            Ok(made) => {
                held += 1;
                assert_eq!(code(&base), Code::Ok);
                for option in &made.mounts[0].options {
                    let folder = option.rsplit('=').next().unwrap();
                    assert!(!folder.starts_with('/') || Path::new(folder).is_dir());
                }
                for key in ["top", "base"] {
                    snapshot::<_, ()>(&peer, "Remove", remove(key))
                        .await
                        .unwrap();
                }
            }
            Err(refusal) => {
                refused += 1;
                assert_eq!(refusal.code(), Code::NotFound, "{refusal}");
                assert_eq!(code(&base), Code::NotFound);
            }
        }
    }
    assert_eq!(held + refused, 24);
    collect(&peer).await;
    eventually("no folder is left", || files(&bed, SNAPSHOTS) == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_goes_and_a_flat_lease_holds_itself_alone() {
    let bed = Bed::new(Shims::Ours);
    let peer = ready(&bed).await;
    let (past, future) = ("2001-02-03T04:05:06Z", "2999-02-03T04:05:06.7+01:00");
    lease(&peer, "now", Labels::new()).await;
    lease(&peer, "past", labels(&[("expire", past)])).await;
    lease(&peer, "future", labels(&[("expire", future)])).await;
    lease(&peer, "flat", labels(&[("flat", "yes")])).await;
    let now = peer.under("now");
    let layer = write(&now, "layer", Labels::new()).await;
    let config = write(&now, "config", Labels::new()).await;
    // What leads to what, in each of the ways.
    let late = write(&peer.under("past"), "late", Labels::new()).await;
    let early = write(
        &peer.under("future"),
        "early",
        labels(&[("ref.content.0", &config)]),
    )
    .await;
    let flat = write(
        &peer.under("flat"),
        "flat",
        labels(&[("ref.content.0", &layer)]),
    )
    .await;
    let back = write(&now, "back", labels(&[("bref.content.x", &early)])).await;
    let image = |name: &str, labels: Labels, digest: &str| CreateImageRequest {
        image: Some(Image {
            name: name.to_owned(),
            labels,
            target: Some(Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: digest.to_owned(),
                size: 5,
                ..Descriptor::default()
            }),
            ..Image::default()
        }),
        ..CreateImageRequest::default()
    };
    let named = write(&now, "named", labels(&[("ref.image.0", "kept")])).await;
    let target = write(&now, "target", Labels::new()).await;
    label(&peer, &early, "ref.content.1", &named).await;
    for request in [
        image("gone", labels(&[("expire", past)]), &late),
        image("kept", labels(&[("expire", past)]), &target),
        image("there", labels(&[("expire", future)]), &target),
    ] {
        let made: Result<CreateImageResponse, _> =
            peer.call("images.v1.Images/Create", request).await;
        made.unwrap();
    }
    release(&peer, "now", true).await;
    for (what, digest, is_there) in [
        ("of an expired lease", &late, false),
        ("of a lease", &early, true),
        ("referred to", &config, true),
        ("of a flat lease", &flat, true),
        ("referred to by what a flat lease holds", &layer, false),
        ("that says it belongs to another", &back, true),
        ("two steps away", &named, true),
        (
            "of an image that is needed, though it has expired",
            &target,
            true,
        ),
    ] {
        assert_eq!(has(&peer, digest).await, is_there, "{what}");
    }
    let images: ListImagesResponse = peer
        .call("images.v1.Images/List", ListImagesRequest::default())
        .await
        .unwrap();
    let names: Vec<_> = images.images.into_iter().map(|image| image.name).collect();
    assert_eq!(names, ["kept", "there"]);
    let leases: ListResponse = peer
        .call("leases.v1.Leases/List", ListRequest::default())
        .await
        .unwrap();
    let ids: Vec<_> = leases.leases.into_iter().map(|lease| lease.id).collect();
    assert_eq!(ids, ["flat", "future"]);
}
