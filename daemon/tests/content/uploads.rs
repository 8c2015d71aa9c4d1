//! Uploads with more than one writer, one after the other or at once.

use std::fs;

use core_api::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use core_api::leases;
use tonic::Code;

use crate::api::Peer;
use crate::common::{Bed, Shims};
use crate::{commit, data, digest, message, read, write};

#[tokio::test]
async fn a_digest_that_is_none_is_refused_before_anything_is_sent() {
    let bed = Bed::new(Shims::Ours);
    let peer = Peer::connect(&bed.address(), "content").await;
    let bad = WriteContentRequest {
        expected: "sha256:xyz".to_owned(),
        ..message(WriteAction::Stat, "r")
    };
    let negative = WriteContentRequest {
        total: -1,
        ..data("r", 0, b"abc")
    };
    for bad in [bad, negative] {
        let told = write(&peer, None, vec![bad]).await;
        assert_eq!(told, "[] then InvalidArgument");
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_a_killed_daemon_left_it() {
    let mut bed = Bed::new(Shims::Ours);
    let blob: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 2])
        .collect();
    let wanted = digest(&blob);
    let peer = Peer::connect(&bed.address(), "content").await;
    write(&peer, None, vec![data("r", 0, &blob[..2_000_000])]).await;
    bed.kill();
    bed.start();
    let peer = Peer::connect(&bed.address(), "content").await;
    let stat = write(&peer, None, vec![message(WriteAction::Stat, "r")]).await;
    assert!(stat.contains("0 2000000 sha256:"), "{stat}");
    let rest = data("r", 2_000_000, &blob[2_000_000..]);
    let end = commit("r", 3_000_000, 3_000_000, &wanted);
    let done = write(&peer, None, vec![rest, end]).await;
    assert!(done.ends_with("then Ok"), "{done}");
    bed.kill();
    bed.start();
    let peer = Peer::connect(&bed.address(), "content").await;
    // Nothing holds the blob, so the collector may have been faster than the reader.
    match read(&peer, &wanted, 0, 0).await {
        Ok(found) => assert!(found == blob),
        Err(code) => assert_eq!(code, Code::NotFound),
    }
    let ingests = bed
        .dir
        .path()
        .join("root/io.containerd.content.v1.content/ingest");
    assert_eq!(
        fs::read_dir(ingests).unwrap().count(),
        0,
        "the upload is gone"
    );
}

#[tokio::test]
async fn an_upload_has_one_writer() {
    let bed = Bed::new(Shims::Ours);
    let peer = Peer::connect(&bed.address(), "content").await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(data("r", 0, b"abc")).await.unwrap();
    let mut first = peer
        .open::<_, WriteContentResponse>("content.v1.Content/Write", receiver)
        .await
        .unwrap();
    assert_eq!(first.message().await.unwrap().unwrap().offset, 3);
    let second = write(&peer, None, vec![message(WriteAction::Stat, "r")]).await;
    assert_eq!(second, "[] then Unavailable");
    // A client that goes away leaves its data to the next one.
    drop((sender, first));
    let mut stat = String::new();
    while !stat.contains("0 3 ") {
        stat = write(&peer, None, vec![message(WriteAction::Stat, "r")]).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_waits_for_an_upload_gets_the_blob_and_not_the_upload_anew() {
    let bed = Bed::new(Shims::Ours);
    let peer = Peer::connect(&bed.address(), "content").await;
    let lease = leases::CreateRequest {
        id: "l".to_owned(),
        ..leases::CreateRequest::default()
    };
    let made: Result<leases::CreateResponse, _> = peer.call("leases.v1.Leases/Create", lease).await;
    made.unwrap();
    for round in 0..40 {
        let blob = format!("blob {round}");
        let (reference, wanted) = (format!("r{round}"), digest(blob.as_bytes()));
        let size = i64::try_from(blob.len()).unwrap();
        let begin = WriteContentRequest {
            expected: wanted.clone(),
            total: size,
            ..message(WriteAction::Stat, &reference)
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        sender.send(begin.clone()).await.unwrap();
        let mut first = peer
            .open::<_, WriteContentResponse>("content.v1.Content/Write", receiver)
            .await
            .unwrap();
        first.message().await.unwrap().unwrap();
        let other = Peer::connect(&bed.address(), "content").await;
        let waiting = tokio::spawn(async move {
            loop {
                let said = write(&other, Some("l"), vec![begin.clone()]).await;
                if said != "[] then Unavailable" {
                    return said;
                }
            }
        });
        let data = data(&reference, 0, blob.as_bytes());
        sender.send(data).await.unwrap();
        let end = commit(&reference, size, size, &wanted);
        sender.send(end).await.unwrap();
        drop(sender);
        while first.message().await.unwrap().is_some() {}
        let said = waiting.await.unwrap();
        assert_eq!(said, "[] then AlreadyExists", "round {round}");
    }
}
