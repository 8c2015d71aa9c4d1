//! Everything that a client may say about an upload, said to both daemons.

use core_api::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, StatusRequest, StatusResponse,
    UpdateRequest, UpdateResponse, WriteAction, WriteContentRequest,
};
use core_api::{FieldMask, leases};

use crate::api::{Peer, Reference};
use crate::common::{Bed, Shims};
use crate::{commit, data, digest, message, read, unary, write};

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
