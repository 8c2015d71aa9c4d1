//! Leases, side by side.

use core_api::containers::{GetContainerRequest, GetContainerResponse};
use core_api::leases::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest,
    ListRequest, ListResourcesRequest, ListResourcesResponse, ListResponse, Resource,
};

use crate::api::told;
use crate::{Talk, map, same_talk};

const SERVICE: &str = "leases.v1.Leases";

async fn create(talk: &mut Talk, step: &str, id: &str, labels: &[(&str, &str)]) {
    let message = CreateRequest {
        id: id.into(),
        labels: map(labels),
    };
    let _ = talk
        .ask::<_, CreateResponse>(step, &format!("{SERVICE}/Create"), message)
        .await;
}

async fn delete(talk: &mut Talk, step: &str, id: &str, sync: bool) {
    let id = id.into();
    let _ = talk
        .ask::<_, ()>(
            step,
            &format!("{SERVICE}/Delete"),
            DeleteRequest { id, sync },
        )
        .await;
}

fn resource(kind: &str, id: &str) -> Option<Resource> {
    Some(Resource {
        id: id.into(),
        r#type: kind.into(),
    })
}

async fn add(talk: &mut Talk, lease: &str, kind: &str, id: &str) {
    let message = AddResourceRequest {
        id: lease.into(),
        resource: resource(kind, id),
    };
    let step = format!("add {kind:?} {id:?} to {lease:?}");
    let _ = talk
        .ask::<_, ()>(&step, &format!("{SERVICE}/AddResource"), message)
        .await;
}

async fn remove(talk: &mut Talk, lease: &str, kind: &str, id: &str) {
    let message = DeleteResourceRequest {
        id: lease.into(),
        resource: resource(kind, id),
    };
    let step = format!("remove {kind:?} {id:?} from {lease:?}");
    let _ = talk
        .ask::<_, ()>(&step, &format!("{SERVICE}/DeleteResource"), message)
        .await;
}

async fn held(talk: &mut Talk, step: &str, lease: &str) {
    let message = ListResourcesRequest { id: lease.into() };
    let _ = talk
        .ask::<_, ListResourcesResponse>(step, &format!("{SERVICE}/ListResources"), message)
        .await;
}

async fn list(talk: &mut Talk, filters: &[&str]) {
    let message = ListRequest {
        filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
    };
    let answer = talk
        .peer
        .call::<_, ListResponse>(&format!("{SERVICE}/List"), message)
        .await
        .map(|list| {
            list.leases
                .into_iter()
                .map(|lease| lease.id)
                .collect::<Vec<_>>()
        });
    talk.note(&format!("list {filters:?}"), &told(&answer));
}

async fn conversation(talk: &mut Talk) {
    list(talk, &[]).await;
    let expiry = "2999-01-01T00:00:00Z";
    create(
        talk,
        "create",
        "one",
        &[("containerd.io/gc.expire", expiry), ("k", "v")],
    )
    .await;
    create(talk, "create again", "one", &[]).await;
    create(talk, "create another", "b-lease", &[("e", "")]).await;
    create(talk, "odd name", "a/b c:d", &[]).await;
    create(talk, "long name", &"l".repeat(300), &[]).await;
    create(
        talk,
        "wrong time",
        "wrong",
        &[("containerd.io/gc.expire", "soon")],
    )
    .await;
    let made = talk
        .peer
        .call::<_, CreateResponse>(&format!("{SERVICE}/Create"), CreateRequest::default())
        .await;
    let id = made.map(|made| made.lease.unwrap().id).unwrap_or_default();
    talk.note("the daemon finds a name", &(!id.is_empty()).to_string());
    delete(talk, "delete that", &id, false).await;
    for filters in [
        &[] as &[&str],
        &["id==one"],
        &["id~=lease"],
        &["labels.k==v"],
        &["labels.\"containerd.io/gc.expire\""],
        &["labels.e"],
        &["id.x==one"],
        &["nonsense"],
        &["created_at"],
        &["id=="],
        &["id==one", "id==b-lease"],
    ] {
        list(talk, filters).await;
    }

    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    held(talk, "of nothing", "one").await;
    held(talk, "of the unknown", "unknown").await;
    held(talk, "of the nameless", "").await;
    for (kind, id) in [
        ("content", digest),
        ("content", digest),
        ("content", "sha256:short"),
        ("content", ""),
        ("content", "x"),
        ("snapshots/overlayfs", "key"),
        ("snapshots/native", "key/with/parts"),
        ("snapshots/native", ""),
        ("snapshots/", "key"),
        ("snapshots", "key"),
        ("snapshots/a/b", "key"),
        ("ingests", "ref"),
        ("ingests", ""),
        ("images", "i"),
        ("nonsense", "x"),
        ("", "x"),
        ("Content", digest),
        ("content/x", digest),
        ("ingests/x", "ref"),
    ] {
        add(talk, "one", kind, id).await;
    }
    add(talk, "unknown", "content", digest).await;
    held(talk, "what it holds", "one").await;
    for (kind, id) in [
        ("content", digest),
        ("content", digest),
        ("content", "x"),
        ("snapshots/overlayfs", "key"),
        ("snapshots/overlayfs", "none"),
        ("snapshots/unheard", "key"),
        ("ingests", "none"),
        ("nonsense", "x"),
    ] {
        remove(talk, "one", kind, id).await;
    }
    remove(talk, "unknown", "content", digest).await;
    held(talk, "what is left", "one").await;
    let method = format!("{SERVICE}/AddResource");
    let nothing = AddResourceRequest {
        id: "one".into(),
        resource: None,
    };
    let _ = talk.ask::<_, ()>("add nothing", &method, nothing).await;
    delete(talk, "delete", "one", true).await;
    delete(talk, "delete again", "one", false).await;
    delete(talk, "delete the nameless", "", false).await;
    held(talk, "of the deleted", "one").await;
    create(talk, "long label", "long", &[("k", &"v".repeat(4096))]).await;
    let nowhere = talk.peer.nowhere();
    let _ = talk
        .ask_as::<_, ListResponse>(
            &nowhere,
            "nowhere",
            &format!("{SERVICE}/List"),
            ListRequest::default(),
        )
        .await;
    let other = talk.peer.of("other");
    let _ = talk
        .ask_as::<_, ListResponse>(
            &other,
            "elsewhere",
            &format!("{SERVICE}/List"),
            ListRequest::default(),
        )
        .await;
    let message = GetContainerRequest { id: "c".into() };
    let _ = talk
        .ask_as::<_, GetContainerResponse>(
            &other,
            "a lease is no container",
            "containers.v1.Containers/Get",
            message,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_answer_as_containerds() {
    let code = "containerd 1.6 lets its database refuse the name, without a code";
    same_talk!(
        conversation,
        &[
            (
                "long label",
                "the limit holds for every label here; containerd forgets it for leases"
            ),
            ("add \"snapshots/native\" \"\" to \"one\"", code),
            ("add \"snapshots/\" \"key\" to \"one\"", code),
            ("add \"ingests\" \"\" to \"one\"", code),
            ("add nothing", "what is missing is named"),
        ]
    );
}
