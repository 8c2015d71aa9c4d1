//! Blobs and uploads beside Debian's containerd: both daemons are asked the same and must answer
//! the same codes; and what a daemon that is killed leaves of an upload.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;

use std::fs;

use api::{Peer, Reference, code};
use common::{Bed, Shims};
use core_api::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use core_api::{FieldMask, leases};
use sha2::{Digest, Sha256};
use tonic::Code;

fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn message(action: WriteAction, reference: &str) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: reference.to_owned(),
        ..WriteContentRequest::default()
    }
}

fn data(reference: &str, offset: i64, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        offset,
        data: data.to_vec(),
        ..message(WriteAction::Write, reference)
    }
}

fn commit(reference: &str, offset: i64, total: i64, expected: &str) -> WriteContentRequest {
    WriteContentRequest {
        offset,
        total,
        expected: expected.to_owned(),
        ..message(WriteAction::Commit, reference)
    }
}

/// What is compared of a conversation: offsets, totals and digests, and the code of its end.
async fn write(peer: &Peer, lease: Option<&str>, messages: Vec<WriteContentRequest>) -> String {
    let (answers, end): (Vec<WriteContentResponse>, _) = peer
        .converse("content.v1.Content/Write", lease, messages)
        .await;
    let mut told: Vec<String> = answers
        .iter()
        .map(|a| format!("{} {} {}", a.action, a.offset, a.digest))
        .collect();
    // containerd says its last word twice when the client has ended, and the total only with STAT.
    told.dedup();
    format!("{told:?} then {:?}", code(&end))
}

async fn read(peer: &Peer, digest: &str, offset: i64, size: i64) -> Result<Vec<u8>, Code> {
    let request = ReadContentRequest {
        digest: digest.to_owned(),
        offset,
        size,
    };
    let mut stream = peer
        .stream::<_, ReadContentResponse>("content.v1.Content/Read", request)
        .await
        .map_err(|refusal| refusal.code())?;
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.map_err(|refusal| refusal.code())? {
        all.extend(part.data);
    }
    Ok(all)
}

async fn unary<A, R>(peer: &Peer, method: &str, request: A) -> Code
where
    A: prost::Message + 'static,
    R: prost::Message + Default + std::fmt::Debug + 'static,
{
    let answer: Result<R, _> = peer
        .call(&format!("content.v1.Content/{method}"), request)
        .await;
    code(&answer)
}

/// What the lease `l` holds.
async fn resources(peer: &Peer) -> String {
    let request = leases::ListResourcesRequest { id: "l".to_owned() };
    let held: Result<leases::ListResourcesResponse, _> =
        peer.call("leases.v1.Leases/ListResources", request).await;
    let held = held.unwrap().resources.into_iter();
    let mut held: Vec<_> = held.map(|held| (held.r#type, held.id)).collect();
    held.sort();
    format!("{held:?}")
}

/// What lists of blobs and of uploads say, with filters good and bad.
async fn lists(peer: &Peer) -> Vec<String> {
    let mut said = Vec::new();
    let hello = digest(b"hello");
    let by_digest = format!("digest==\"{hello}\"");
    let info = Info {
        digest: hello.clone(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        ..Info::default()
    };
    let request = UpdateRequest {
        info: Some(info),
        update_mask: Some(FieldMask {
            paths: vec!["labels.k".to_owned()],
        }),
    };
    let changed = unary::<_, UpdateResponse>(peer, "Update", request).await;
    said.push(format!("{changed:?}"));
    for filter in [
        "",
        &by_digest,
        "digest~=sha256",
        "digest!=x",
        "labels.k==v",
        "labels.k",
        "labels.none",
        "size",
        "size==5",
        "nonsense",
    ] {
        let filters = match filter {
            "" => vec![],
            filter => vec![filter.to_owned()],
        };
        let request = ListContentRequest { filters };
        let mut stream = peer
            .stream::<_, ListContentResponse>("content.v1.Content/List", request)
            .await
            .unwrap();
        let mut found = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            found.extend(part.info.into_iter().map(|info| (info.digest, info.size)));
        }
        found.sort();
        said.push(format!("list {filter}: {found:?}"));
    }
    for filter in [
        "", "ref==r7", "ref~=^r", "ref!=r7", "nonsense", "ref==", "^r",
    ] {
        let filters = match filter {
            "" => vec![],
            filter => vec![filter.to_owned()],
        };
        let request = ListStatusesRequest { filters };
        let found: Result<ListStatusesResponse, _> =
            peer.call("content.v1.Content/ListStatuses", request).await;
        let found = found.map(|found| {
            let statuses = found.statuses.into_iter();
            let mut found: Vec<_> = statuses.map(|s| (s.r#ref, s.offset, s.total)).collect();
            // containerd keeps the data of uploads that can never be committed.
            found.retain(|(reference, ..)| reference != "r4" && reference != "r8");
            found.sort();
            found
        });
        said.push(format!(
            "statuses {filter}: {:?}",
            found.map_err(|refusal| refusal.code())
        ));
    }
    said
}

/// Everything a client may do with an upload, good and bad; one line each.
async fn everything(peer: &Peer) -> Vec<String> {
    use WriteAction::Stat;
    let mut said = Vec::new();
    let lease = leases::CreateRequest {
        id: "l".to_owned(),
        ..leases::CreateRequest::default()
    };
    let elsewhere = peer.of("elsewhere");
    for peer in [peer, &elsewhere] {
        let made: Result<leases::CreateResponse, _> =
            peer.call("leases.v1.Leases/Create", lease.clone()).await;
        made.unwrap();
    }
    let lease = Some("l");
    let hello = digest(b"hello");
    said.push(write(peer, lease, vec![message(Stat, "")]).await);
    said.push(write(peer, lease, vec![]).await);
    said.push(write(peer, Some("none"), vec![message(Stat, "r0")]).await);
    said.push(write(peer, lease, vec![message(Stat, "r1"), data("r1", 0, b"he")]).await);
    said.push(
        write(
            peer,
            lease,
            vec![message(Stat, "r1"), data("r1", 2, b"llo")],
        )
        .await,
    );
    said.push(write(peer, lease, vec![data("r1", 2, b"xxx")]).await);
    let status = |reference: &str| StatusRequest {
        r#ref: reference.to_owned(),
    };
    said.push(format!(
        "{:?}",
        unary::<_, StatusResponse>(peer, "Status", status("r1")).await
    ));
    said.push(format!(
        "{:?}",
        unary::<_, StatusResponse>(peer, "Status", status("r9")).await
    ));
    said.push(write(peer, lease, vec![commit("r1", 5, 6, &hello)]).await);
    said.push(write(peer, lease, vec![commit("r1", 5, 5, &hello)]).await);
    said.push(
        write(
            peer,
            lease,
            vec![message(Stat, "r2"), commit("r2", 0, 0, &hello)],
        )
        .await,
    );
    let again = WriteContentRequest {
        expected: hello.clone(),
        ..message(Stat, "r3")
    };
    said.push(write(peer, lease, vec![again.clone()]).await);
    let other = [again.clone(), commit("r3", 0, 0, &digest(b"other"))];
    said.push(write(peer, lease, other.into()).await);
    said.push(write(&elsewhere, lease, vec![again.clone()]).await);
    let shared = vec![again, commit("r3", 5, 5, &hello)];
    said.push(write(&elsewhere, lease, shared).await);
    let wrong = vec![data("r4", 0, b"abc"), commit("r4", 3, 3, &digest(b"abd"))];
    said.push(write(peer, lease, wrong).await);
    let totals = vec![
        WriteContentRequest {
            total: 5,
            ..message(Stat, "r5")
        },
        WriteContentRequest {
            total: 6,
            ..message(Stat, "r5")
        },
    ];
    said.push(write(peer, lease, totals).await);
    said.push(
        write(
            peer,
            lease,
            vec![data("r6", 0, b"abc"), data("r6", 0, b"d")],
        )
        .await,
    );
    said.push(write(peer, lease, vec![commit("empty", 0, 0, "")]).await);
    // Gaps, totals that no disk has, and totals that are not reached.
    said.push(write(peer, lease, vec![data("r7", 2, b"abc")]).await);
    let huge = WriteContentRequest {
        total: i64::MAX,
        ..data("r8", 0, b"abc")
    };
    said.push(write(peer, lease, vec![huge, commit("r8", 3, 0, "")]).await);
    said.push(write(peer, lease, vec![commit("r8", 3, 3, "")]).await);
    said.extend(lists(peer).await);

    for (offset, size) in [
        (0, 0),
        (1, 2),
        (5, 0),
        (0, 6),
        (6, 0),
        (4, 1),
        (-1, 0),
        (0, -1),
    ] {
        said.push(format!("{:?}", read(peer, &hello, offset, size).await));
    }
    said.push(format!("{:?}", read(peer, &digest(b"none"), 0, 0).await));
    said.push(format!("{:?}", read(peer, "nonsense", 0, 0).await));
    for (digest, paths) in [
        (hello.as_str(), vec!["labels.a"]),
        (&hello, vec!["size"]),
        (&hello, vec![]),
        (&digest(b"none"), vec![]),
        ("nonsense", vec![]),
    ] {
        let info = Info {
            digest: digest.to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Info::default()
        };
        let request = UpdateRequest {
            info: Some(info),
            update_mask: Some(FieldMask {
                paths: paths.into_iter().map(str::to_owned).collect(),
            }),
        };
        said.push(format!(
            "{:?}",
            unary::<_, UpdateResponse>(peer, "Update", request).await
        ));
    }
    let of = |digest: &str| InfoRequest {
        digest: digest.to_owned(),
    };
    for known in [hello.as_str(), &digest(b"none"), "nonsense", ""] {
        said.push(format!(
            "{:?}",
            unary::<_, InfoResponse>(peer, "Info", of(known)).await
        ));
    }
    for reference in ["r4", "r4", "nothing", ""] {
        let request = AbortRequest {
            r#ref: reference.to_owned(),
        };
        said.push(format!(
            "{:?}",
            unary::<_, ()>(peer, "Abort", request).await
        ));
    }
    for gone in [hello.as_str(), &hello, "nonsense"] {
        let request = DeleteContentRequest {
            digest: gone.to_owned(),
        };
        said.push(format!(
            "{:?}",
            unary::<_, ()>(peer, "Delete", request).await
        ));
    }
    // What is thrown away under a lease leaves it.
    let under = peer.under("l");
    said.push(write(peer, lease, vec![data("r10", 0, b"abc")]).await);
    said.push(write(peer, lease, vec![commit("r11", 0, 0, &digest(b""))]).await);
    said.push(resources(peer).await);
    let abort = AbortRequest {
        r#ref: "r10".to_owned(),
    };
    said.push(format!(
        "{:?}",
        unary::<_, ()>(&under, "Abort", abort).await
    ));
    let gone = DeleteContentRequest {
        digest: digest(b""),
    };
    said.push(format!(
        "{:?}",
        unary::<_, ()>(&under, "Delete", gone).await
    ));
    said.push(resources(peer).await);
    // Digests of another kind.
    let long = format!("sha512:{}", "ab".repeat(64));
    said.push(format!(
        "{:?}",
        unary::<_, InfoResponse>(peer, "Info", of(&long)).await
    ));
    said.push(
        write(
            peer,
            lease,
            vec![data("r12", 0, b"x"), commit("r12", 1, 1, &long)],
        )
        .await,
    );
    let info: Result<InfoResponse, _> = elsewhere.call("content.v1.Content/Info", of(&hello)).await;
    said.push(format!(
        "{:?}",
        info.map(|answer| answer.info.unwrap().size)
    ));
    said
}

#[tokio::test]
async fn both_daemons_answer_the_same() {
    let bed = Bed::new(Shims::Ours);
    let reference = Reference::new("");
    let ours = everything(&Peer::connect(&bed.address(), "content").await).await;
    let theirs = everything(&Peer::connect(&reference.address(), "content").await).await;
    let differ: Vec<_> = ours
        .iter()
        .zip(&theirs)
        .enumerate()
        .filter(|(_, (ours, theirs))| ours != theirs)
        .collect();
    assert!(differ.is_empty(), "ours is left: {differ:#?}");
    assert_eq!(ours.len(), theirs.len());
}

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
