//! What a namespace may have of the blobs of another.

use std::fs;

use core_api::content::{
    DeleteContentRequest, InfoRequest, InfoResponse, WriteAction, WriteContentRequest,
};

use crate::api::{Peer, Reference};
use crate::common::{Bed, Shims};
use crate::{commit, data, digest, message, read, unary, write};

/// What a namespace is told that wants a blob which another has: of its STAT, of a commit without
/// data, of one with data.
async fn wanted_elsewhere(peer: &Peer) -> Vec<String> {
    let hello = digest(b"hello");
    let root = [("containerd.io/gc.root".to_owned(), "yes".to_owned())];
    let label = |request: WriteContentRequest| WriteContentRequest {
        labels: root.clone().into(),
        ..request
    };
    let first = vec![data("r", 0, b"hello"), label(commit("r", 5, 5, &hello))];
    let elsewhere = peer.of("elsewhere");
    let mut said = vec![write(peer, None, first).await];
    let stat = WriteContentRequest {
        expected: hello.clone(),
        total: 5,
        ..message(WriteAction::Stat, "r")
    };
    said.push(write(&elsewhere, None, vec![stat.clone()]).await);
    let nothing = vec![stat.clone(), label(commit("r", 0, 5, &hello))];
    said.push(write(&elsewhere, None, nothing).await);
    let info = |peer: Peer| {
        let request = InfoRequest {
            digest: hello.clone(),
        };
        async move { unary::<_, InfoResponse>(&peer, "Info", request).await }
    };
    said.push(format!("{:?}", info(elsewhere.clone()).await));
    let whole = vec![
        stat,
        data("r", 0, b"hello"),
        label(commit("r", 5, 5, &hello)),
    ];
    said.push(write(&elsewhere, None, whole).await);
    said.push(format!("{:?}", info(elsewhere.clone()).await));
    said.push(format!("{:?}", info(peer.of("third")).await));
    // Each namespace has it for itself.
    let gone = DeleteContentRequest {
        digest: hello.clone(),
    };
    said.push(format!("{:?}", unary::<_, ()>(peer, "Delete", gone).await));
    said.push(format!("{:?}", read(peer, &hello, 0, 0).await));
    said.push(format!("{:?}", read(&elsewhere, &hello, 0, 0).await));
    said
}

#[tokio::test]
async fn an_isolated_namespace_has_to_send_what_it_wants_to_have() {
    let isolated = "[plugins.\"io.containerd.metadata.v1.bolt\"]\n\
        content_sharing_policy = \"isolated\"\n";
    let mut files = Vec::new();
    for config in ["", isolated] {
        let bed = Bed::with_config(Shims::Ours, &format!("version = 2\n{config}"));
        let reference = Reference::new(config);
        let peer = Peer::connect(&bed.address(), "content").await;
        let ours = wanted_elsewhere(&peer).await;
        let theirs = wanted_elsewhere(&Peer::connect(&reference.address(), "content").await).await;
        assert_eq!(ours, theirs, "{config:?}");
        // However they came to it, the blob is on the disk once.
        let blobs = "root/io.containerd.content.v1.content/blobs/sha256";
        for dir in [&bed.dir, &reference.dir] {
            files.push(fs::read_dir(dir.path().join(blobs)).unwrap().count());
        }
        assert!(!bed.log().contains("no effect"), "{}", bed.log());
    }
    assert_eq!(files, [1, 1, 1, 1]);
}

#[tokio::test]
async fn an_isolated_namespace_may_have_what_another_is_labelled_to_share() {
    let config = "version = 2\n[plugins.\"io.containerd.metadata.v1.bolt\"]\n\
        content_sharing_policy = \"isolated\"\n";
    let bed = Bed::with_config(Shims::Ours, config);
    let peer = Peer::connect(&bed.address(), "generous").await;
    let hello = digest(b"hello");
    let labels = [("containerd.io/gc.root".to_owned(), "yes".to_owned())];
    let held = WriteContentRequest {
        labels: labels.into(),
        ..commit("r", 5, 5, &hello)
    };
    let first = vec![data("r", 0, b"hello"), held.clone()];
    assert!(write(&peer, None, first).await.ends_with("then Ok"));
    let stat = WriteContentRequest {
        expected: hello.clone(),
        ..message(WriteAction::Stat, "r")
    };
    let elsewhere = peer.of("elsewhere");
    let told = write(&elsewhere, None, vec![stat.clone()]).await;
    assert!(told.contains("0 0 sha256:"), "{told}");
    for value in ["false", "true"] {
        let label = format!("containerd.io/namespace.shareable={value}");
        bed.ctr(&["ns", "label", "generous", &label]).ok();
        let told = write(&elsewhere, None, vec![stat.clone()]).await;
        let offset = if value == "true" { 5 } else { 0 };
        assert!(
            told.contains(&format!("0 {offset} sha256:")),
            "{value}: {told}"
        );
    }
    let told = write(&elsewhere, None, vec![stat, held]).await;
    assert!(told.ends_with("then Ok"), "{told}");
}
