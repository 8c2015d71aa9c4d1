//! Layers, side by side: which are unpacked, and how the others are refused. What is unpacked is
//! compared in `tests/layers/`.

use std::io::Write;

use core_api::content::{
    Info, InfoRequest, InfoResponse, WriteAction, WriteContentRequest, WriteContentResponse,
};
use core_api::diff::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse};
use core_api::snapshots::{PrepareSnapshotRequest, PrepareSnapshotResponse};
use core_api::types::{Descriptor, Mount};
use sha2::{Digest, Sha256};

use crate::api::told;
use crate::{Talk, map, same_talk};

const ROOT: (&str, &str) = ("containerd.io/gc.root", "yes");

fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

async fn store(talk: &Talk, data: &[u8]) -> Descriptor {
    let message = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: digest(data),
        data: data.to_vec(),
        labels: map(&[ROOT]),
        ..WriteContentRequest::default()
    };
    let (_, end): (Vec<WriteContentResponse>, _) = talk
        .peer
        .converse("content.v1.Content/Write", None, vec![message])
        .await;
    end.unwrap();
    Descriptor {
        digest: digest(data),
        size: data.len().try_into().unwrap(),
        ..Descriptor::default()
    }
}

async fn prepare(talk: &Talk, key: &str) -> Vec<Mount> {
    let message = PrepareSnapshotRequest {
        snapshotter: "overlayfs".into(),
        key: key.into(),
        parent: String::new(),
        labels: map(&[ROOT]),
    };
    let method = "snapshots.v1.Snapshots/Prepare";
    let made: PrepareSnapshotResponse = talk.peer.call(method, message).await.unwrap();
    made.mounts
}

async fn apply(talk: &mut Talk, step: &str, diff: Option<Descriptor>, mounts: Vec<Mount>) {
    let message = ApplyRequest {
        diff,
        mounts,
        ..ApplyRequest::default()
    };
    let step = format!("apply {step}");
    let _ = talk
        .ask::<_, ApplyResponse>(&step, "diff.v1.Diff/Apply", message)
        .await;
}

fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o640);
    archive
        .append_data(&mut header, "folder/file", &b"data"[..])
        .unwrap();
    archive.into_inner().unwrap()
}

async fn conversation(talk: &mut Talk) {
    let plain = archive();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    let blobs = [
        ("plain", store(talk, &plain).await),
        ("gzip", store(talk, &gzip).await),
        ("zstd", store(talk, &zstd).await),
        ("no layer", store(talk, b"no layer").await),
    ];
    let mut count = 0;
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.oci.image.layer.v1.tar+encrypted",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.config.v1+json",
        "application/octet-stream",
        "text",
        "",
    ] {
        for (kind, blob) in &blobs {
            count += 1;
            let mounts = prepare(talk, &format!("k{count}")).await;
            let diff = Some(Descriptor {
                media_type: media_type.into(),
                ..blob.clone()
            });
            apply(talk, &format!("{media_type:?}, {kind}"), diff, mounts).await;
        }
    }
    let layer = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        ..blobs[1].1.clone()
    };
    let mounts = prepare(talk, "last").await;
    let unknown = Descriptor {
        digest: digest(b"unknown"),
        ..layer.clone()
    };
    apply(talk, "the unknown", Some(unknown), mounts.clone()).await;
    let wrong = Descriptor {
        digest: "sha256:x".into(),
        ..layer.clone()
    };
    apply(talk, "what is no digest", Some(wrong), mounts.clone()).await;
    let size = Descriptor {
        size: 1,
        ..layer.clone()
    };
    apply(talk, "another size", Some(size), mounts.clone()).await;
    let nowhere = Mount {
        source: "/proc/nonexistent/x".into(),
        ..mounts[0].clone()
    };
    apply(talk, "to nowhere", Some(layer.clone()), vec![nowhere]).await;
    let odd = Mount {
        r#type: "nonsense".into(),
        ..mounts[0].clone()
    };
    apply(
        talk,
        "to what cannot be mounted",
        Some(layer.clone()),
        vec![odd],
    )
    .await;
    let elsewhere = talk.peer.of("elsewhere");
    let peer = std::mem::replace(&mut talk.peer, elsewhere);
    apply(talk, "elsewhere", Some(layer.clone()), mounts.clone()).await;
    talk.peer = peer;
    apply(talk, "at last", Some(layer), mounts.clone()).await;

    for (media_type, reference, labels) in [
        ("", "", &[] as &[_]),
        (
            "application/vnd.oci.image.layer.v1.tar",
            "r",
            &[ROOT, ("k", "v")],
        ),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "r", &[ROOT]),
        ("application/vnd.oci.image.layer.v1.tar+zstd", "r", &[ROOT]),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "r",
            &[],
        ),
        ("nonsense", "r", &[]),
    ] {
        let message = DiffRequest {
            left: Vec::new(),
            right: mounts.clone(),
            media_type: media_type.into(),
            r#ref: reference.into(),
            labels: map(labels),
            source_date_epoch: None,
        };
        let made: Result<DiffResponse, _> = talk.peer.call("diff.v1.Diff/Diff", message).await;
        let step = format!("make {media_type:?}");
        let Ok(made) = made else {
            talk.note(&step, &told(&made));
            talk.note(&format!("labels of {media_type:?}"), "");
            continue;
        };
        let made = made.diff.unwrap();
        talk.note(&step, &made.media_type);
        let message = InfoRequest {
            digest: made.digest,
        };
        let found: InfoResponse = talk
            .peer
            .call("content.v1.Content/Info", message)
            .await
            .unwrap();
        let Info { labels, size, .. } = found.info.unwrap();
        assert_eq!(size, made.size);
        let names: Vec<_> = labels.keys().collect();
        talk.note(&format!("labels of {media_type:?}"), &format!("{names:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_taken_and_refused_as_by_containerd() {
    let broken = "a broken layer is a bad argument; containerd has no code for it";
    let none = "what is no layer has the code for what is not implemented; containerd's has none";
    let newer = "from containerd 2.0 on";
    same_talk!(
        conversation,
        &[
            (
                "apply \"application/vnd.oci.image.layer.v1.tar\", gzip",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.v1.tar\", zstd",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.v1.tar\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.v1.tar+gzip\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.v1.tar+zstd\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.v1.tar+gzip+encrypted*",
                none
            ),
            (
                "apply \"application/vnd.oci.image.layer.v1.tar+encrypted*",
                none
            ),
            (
                "apply \"application/vnd.oci.image.layer.nondistributable.v1.tar\", gzip",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.nondistributable.v1.tar\", zstd",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.nondistributable.v1.tar\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.docker.image.rootfs.diff.tar\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.docker.image.rootfs.diff.tar.gzip\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.docker.image.rootfs.diff.tar.zstd*",
                newer
            ),
            (
                "apply \"application/vnd.docker.image.rootfs.foreign.diff.tar\", no layer",
                broken
            ),
            (
                "apply \"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip\", no layer",
                broken
            ),
            ("apply \"application/vnd.oci.image.config.v1+json*", none),
            ("apply \"application/octet-stream*", none),
            ("apply \"text*", none),
            ("apply \"\"*", none),
            (
                "apply what is no digest",
                "what cannot be a digest is a bad argument"
            ),
            (
                "make \"application/vnd.oci.image.layer.v1.tar+zstd\"",
                newer
            ),
            (
                "labels of \"application/vnd.oci.image.layer.v1.tar+zstd\"",
                newer
            ),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_of_nothing_is_refused() {
    // containerd 1.6 dies of it.
    let pair = crate::Pair::new();
    let mut talk = pair.talk(crate::Who::Ours).await;
    let mounts = prepare(&talk, "k").await;
    apply(&mut talk, "nothing", None, mounts).await;
    let encrypted = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into(),
        ..store(&talk, b"secret").await
    };
    apply(&mut talk, "what is encrypted", Some(encrypted), Vec::new()).await;
    let [(_, nothing), (_, encrypted)] = &talk.said[..] else {
        panic!("{:?}", talk.said)
    };
    assert!(nothing.contains("diff must be set"), "{nothing}");
    assert!(encrypted.contains("is encrypted"), "{encrypted}");
}
