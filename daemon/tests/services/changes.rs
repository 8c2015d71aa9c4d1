//! The events of every change of the daemon's own, side by side, and which filters see them.

use core_api::containers::{
    Container, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest,
    UpdateContainerRequest, UpdateContainerResponse, container,
};
use core_api::content::{
    DeleteContentRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use core_api::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use core_api::events_service::Envelope;
use core_api::images::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, Image, UpdateImageRequest,
    UpdateImageResponse,
};
use core_api::leases::{CreateRequest, CreateResponse, DeleteRequest};
use core_api::namespaces::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, Namespace,
    UpdateNamespaceRequest, UpdateNamespaceResponse,
};
use core_api::prost::Message;
use core_api::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    ViewSnapshotRequest, ViewSnapshotResponse,
};
use core_api::types::Descriptor;

use crate::api::Peer;
use crate::watchers::{LAST, publish, subscribe};
use crate::{Talk, map, odd_any, same_talk};

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// An event as it is compared: without its time, and without what containerd 1.6 does not know of
/// it yet.
fn text(event: Envelope) -> String {
    let any = event.event.unwrap();
    let value = match any.type_url.as_str() {
        "containerd.events.SnapshotPrepare" => SnapshotPrepare {
            snapshotter: String::new(),
            ..SnapshotPrepare::decode(any.value.as_slice()).unwrap()
        }
        .encode_to_vec(),
        "containerd.events.SnapshotCommit" => SnapshotCommit {
            snapshotter: String::new(),
            ..SnapshotCommit::decode(any.value.as_slice()).unwrap()
        }
        .encode_to_vec(),
        "containerd.events.SnapshotRemove" => SnapshotRemove {
            snapshotter: String::new(),
            ..SnapshotRemove::decode(any.value.as_slice()).unwrap()
        }
        .encode_to_vec(),
        _ => any.value,
    };
    format!(
        "{} {} {} {:?}",
        event.namespace,
        event.topic,
        any.type_url,
        String::from_utf8_lossy(&value)
    )
}

async fn call<A, R>(peer: &Peer, method: &str, message: A) -> bool
where
    A: Message + 'static,
    R: Message + Default + 'static,
{
    let answer: Result<R, _> = peer.call(method, message).await;
    answer.is_ok()
}

/// Changes one thing of each kind in each way, and tells which of it was done.
async fn change(peer: &Peer) -> Vec<bool> {
    let mut done = Vec::new();
    let namespace = |labels| {
        Some(Namespace {
            name: "n1".into(),
            labels: map(labels),
        })
    };
    let create = CreateNamespaceRequest {
        namespace: namespace(&[("k", "v")]),
    };
    let method = |name: &str| format!("namespaces.v1.Namespaces/{name}");
    done.push(call::<_, CreateNamespaceResponse>(peer, &method("Create"), create).await);
    let update = UpdateNamespaceRequest {
        namespace: namespace(&[("k", "w")]),
        update_mask: None,
    };
    done.push(call::<_, UpdateNamespaceResponse>(peer, &method("Update"), update).await);
    for _ in 0..2 {
        let delete = DeleteNamespaceRequest { name: "n1".into() };
        done.push(call::<_, ()>(peer, &method("Delete"), delete).await);
    }

    let container = |image: &str| {
        Some(Container {
            id: "c1".into(),
            image: image.into(),
            labels: map(&[("k", "v")]),
            runtime: Some(container::Runtime {
                name: "runc".into(),
                options: None,
            }),
            spec: Some(odd_any()),
            ..Container::default()
        })
    };
    let method = |name: &str| format!("containers.v1.Containers/{name}");
    let create = CreateContainerRequest {
        container: container("one"),
    };
    done.push(call::<_, CreateContainerResponse>(peer, &method("Create"), create).await);
    let update = UpdateContainerRequest {
        container: container("two"),
        update_mask: None,
    };
    done.push(call::<_, UpdateContainerResponse>(peer, &method("Update"), update).await);
    let delete = DeleteContainerRequest { id: "c1".into() };
    done.push(call::<_, ()>(peer, &method("Delete"), delete).await);

    let root = map(&[("containerd.io/gc.root", "yes")]);
    let write = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: "r".into(),
        data: b"hello".to_vec(),
        labels: root.clone(),
        ..WriteContentRequest::default()
    };
    let method = |name: &str| format!("content.v1.Content/{name}");
    let (_, end): (Vec<WriteContentResponse>, _) =
        peer.converse(&method("Write"), None, vec![write]).await;
    done.push(end.is_ok());

    let image = |label: &str| {
        Some(Image {
            name: "i:1".into(),
            labels: map(&[("k", label)]),
            target: Some(Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                digest: HELLO.into(),
                size: 5,
                ..Descriptor::default()
            }),
            ..Image::default()
        })
    };
    let method = |name: &str| format!("images.v1.Images/{name}");
    let create = CreateImageRequest {
        image: image("v"),
        ..CreateImageRequest::default()
    };
    done.push(call::<_, CreateImageResponse>(peer, &method("Create"), create).await);
    let update = UpdateImageRequest {
        image: image("w"),
        ..UpdateImageRequest::default()
    };
    done.push(call::<_, UpdateImageResponse>(peer, &method("Update"), update).await);
    for _ in 0..2 {
        let delete = DeleteImageRequest {
            name: "i:1".into(),
            ..DeleteImageRequest::default()
        };
        done.push(call::<_, ()>(peer, &method("Delete"), delete).await);
    }
    let delete = DeleteContentRequest {
        digest: HELLO.into(),
    };
    done.push(call::<_, ()>(peer, "content.v1.Content/Delete", delete).await);

    let method = |name: &str| format!("snapshots.v1.Snapshots/{name}");
    let snapshotter = || "overlayfs".to_owned();
    let prepare = PrepareSnapshotRequest {
        snapshotter: snapshotter(),
        key: "a".into(),
        parent: String::new(),
        labels: root.clone(),
    };
    done.push(call::<_, PrepareSnapshotResponse>(peer, &method("Prepare"), prepare).await);
    let commit = CommitSnapshotRequest {
        snapshotter: snapshotter(),
        name: "base".into(),
        key: "a".into(),
        labels: root.clone(),
    };
    done.push(call::<_, ()>(peer, &method("Commit"), commit).await);
    let view = ViewSnapshotRequest {
        snapshotter: snapshotter(),
        key: "v".into(),
        parent: "base".into(),
        labels: root,
    };
    done.push(call::<_, ViewSnapshotResponse>(peer, &method("View"), view).await);
    for key in ["base", "v", "base"] {
        let remove = RemoveSnapshotRequest {
            snapshotter: snapshotter(),
            key: key.into(),
        };
        done.push(call::<_, ()>(peer, &method("Remove"), remove).await);
    }

    let lease = CreateRequest {
        id: "l".into(),
        ..CreateRequest::default()
    };
    let method = |name: &str| format!("leases.v1.Leases/{name}");
    done.push(call::<_, CreateResponse>(peer, &method("Create"), lease).await);
    let delete = DeleteRequest {
        id: "l".into(),
        sync: true,
    };
    done.push(call::<_, ()>(peer, &method("Delete"), delete).await);
    done
}

async fn conversation(talk: &mut Talk) {
    let by_digest = format!("event.digest==\"{HELLO}\"");
    let filters = [
        "",
        "event.name==\"i:1\"",
        "event.name==base",
        "event.name",
        "event.labels.k==v",
        "event.labels.k==w",
        &by_digest,
        "event.digest",
        "event.key==a",
        "event.key==v",
        "event.key",
        "event.parent==base",
        "event.parent",
        "event.size",
        "event.image==two",
        "event.id==c1",
        "topic~=|^/images/|",
        "topic==\"/snapshot/prepare\",event.parent==base",
    ];
    let subscriptions = subscribe(&talk.peer, &filters).await;
    let done = change(&talk.peer).await;
    talk.note("what was done", &format!("{done:?}"));
    publish(&talk.peer, LAST).await;
    for (filter, seen) in subscriptions {
        // Of blobs that are made containerd tells from 2.0 on.
        let is_told = |event: &Envelope| event.topic != LAST && event.topic != "/content/create";
        let seen = seen.await.unwrap().into_iter().filter(is_told).map(text);
        let seen: Vec<String> = seen.collect();
        talk.note(&format!("seen by {filter:?}"), &seen.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_told_as_by_containerd() {
    same_talk!(conversation, &[]);
}
