//! Namespaces, side by side.

use core_api::FieldMask;
use core_api::containers::{
    Container, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, container,
};
use core_api::leases;
use core_api::namespaces::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest,
    GetNamespaceResponse, ListNamespacesRequest, ListNamespacesResponse, Namespace,
    UpdateNamespaceRequest, UpdateNamespaceResponse,
};

use crate::{Talk, map, odd_any, same_talk};

const SERVICE: &str = "namespaces.v1.Namespaces";

async fn create(talk: &mut Talk, step: &str, name: &str, labels: &[(&str, &str)]) {
    let namespace = Some(Namespace {
        name: name.into(),
        labels: map(labels),
    });
    let message = CreateNamespaceRequest { namespace };
    let _ = talk
        .ask::<_, CreateNamespaceResponse>(step, &format!("{SERVICE}/Create"), message)
        .await;
}

async fn update(talk: &mut Talk, step: &str, name: &str, labels: &[(&str, &str)], paths: &[&str]) {
    let message = UpdateNamespaceRequest {
        namespace: Some(Namespace {
            name: name.into(),
            labels: map(labels),
        }),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
    };
    let _ = talk
        .ask::<_, UpdateNamespaceResponse>(step, &format!("{SERVICE}/Update"), message)
        .await;
}

async fn get(talk: &mut Talk, step: &str, name: &str) {
    let message = GetNamespaceRequest { name: name.into() };
    let _ = talk
        .ask::<_, GetNamespaceResponse>(step, &format!("{SERVICE}/Get"), message)
        .await;
}

async fn delete(talk: &mut Talk, step: &str, name: &str) {
    let message = DeleteNamespaceRequest { name: name.into() };
    let _ = talk
        .ask::<_, ()>(step, &format!("{SERVICE}/Delete"), message)
        .await;
}

async fn list(talk: &mut Talk, step: &str) {
    let message = ListNamespacesRequest::default();
    let _ = talk
        .ask::<_, ListNamespacesResponse>(step, &format!("{SERVICE}/List"), message)
        .await;
}

async fn conversation(talk: &mut Talk) {
    list(talk, "list of nothing").await;
    create(talk, "create", "one", &[("color", "red"), ("a.b/c", "d")]).await;
    create(talk, "create again", "one", &[]).await;
    create(talk, "create another", "another", &[("empty", "")]).await;
    create(talk, "create without a name", "", &[]).await;
    create(talk, "create with a bad name", "a/b", &[]).await;
    create(talk, "create with two dots", "a..b", &[]).await;
    create(talk, "create with 76", &"n".repeat(76), &[]).await;
    create(talk, "create with 77", &"n".repeat(77), &[]).await;
    create(talk, "label of 4096", "l4096", &[("k", &"v".repeat(4095))]).await;
    create(talk, "label of 4097", "l4097", &[("k", &"v".repeat(4096))]).await;
    get(talk, "get", "one").await;
    get(talk, "get the one with an empty label", "another").await;
    get(talk, "get the unknown", "unknown").await;
    get(talk, "get the nameless", "").await;
    get(talk, "get the impossible", "a/b").await;
    list(talk, "list").await;

    update(
        talk,
        "mask of one label",
        "one",
        &[("color", "blue"), ("n", "o")],
        &["labels.color"],
    )
    .await;
    update(
        talk,
        "mask of a missing label",
        "one",
        &[("x", "y")],
        &["labels.color"],
    )
    .await;
    update(
        talk,
        "mask of all labels",
        "one",
        &[("x", "y")],
        &["labels"],
    )
    .await;
    update(talk, "no mask", "one", &[("new", "1")], &[]).await;
    update(talk, "empty value", "one", &[("new", "")], &["labels.new"]).await;
    update(talk, "bad mask", "one", &[("new", "1")], &["name"]).await;
    update(talk, "empty mask entry", "one", &[("new", "1")], &[""]).await;
    update(talk, "update the unknown", "unknown", &[("new", "1")], &[]).await;
    update(
        talk,
        "update with a mask, the unknown",
        "unknown",
        &[("n", "1")],
        &["labels.n"],
    )
    .await;
    update(
        talk,
        "too long a label",
        "one",
        &[("k", &"v".repeat(4096))],
        &["labels.k"],
    )
    .await;
    update(
        talk,
        "too long a label, no mask",
        "one",
        &[("k", &"v".repeat(4096))],
        &[],
    )
    .await;
    get(talk, "get after updates", "one").await;

    let one = talk.peer.of("one");
    let container = Container {
        id: "c".into(),
        runtime: Some(container::Runtime {
            name: "r".into(),
            options: None,
        }),
        spec: Some(odd_any()),
        ..Container::default()
    };
    let message = CreateContainerRequest {
        container: Some(container),
    };
    let _ = talk
        .ask_as::<_, CreateContainerResponse>(
            &one,
            "container in it",
            "containers.v1.Containers/Create",
            message,
        )
        .await;
    delete(talk, "delete one that has a container", "one").await;
    let message = DeleteContainerRequest { id: "c".into() };
    let _ = talk
        .ask_as::<_, ()>(
            &one,
            "remove it",
            "containers.v1.Containers/Delete",
            message,
        )
        .await;
    let message = leases::CreateRequest {
        id: "lease".into(),
        labels: map(&[]),
    };
    let _ = talk
        .ask_as::<_, leases::CreateResponse>(
            &one,
            "lease in it",
            "leases.v1.Leases/Create",
            message,
        )
        .await;
    delete(talk, "delete one that has a lease", "one").await;
    let message = leases::DeleteRequest {
        id: "lease".into(),
        sync: false,
    };
    let _ = talk
        .ask_as::<_, ()>(&one, "remove the lease", "leases.v1.Leases/Delete", message)
        .await;
    delete(talk, "delete the empty one", "one").await;
    delete(talk, "delete it again", "one").await;
    delete(talk, "delete the nameless", "").await;
    get(talk, "get the deleted", "one").await;
    list(talk, "list in the end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_answer_as_containerds() {
    let echo = "containerd 1.6 answers an update with an empty namespace";
    let code = "containerd 1.6 loses the code of its own refusal";
    same_talk!(
        conversation,
        &[
            ("mask of one label", echo),
            ("mask of a missing label", echo),
            ("no mask", echo),
            ("empty value", echo),
            ("update the unknown", echo),
            ("update with a mask, the unknown", echo),
            ("too long a label", code),
            ("too long a label, no mask", code),
        ]
    );
}
