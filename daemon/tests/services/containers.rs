//! Records of containers, side by side.

use core_api::containers::{
    Container, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest,
    GetContainerRequest, GetContainerResponse, ListContainersRequest, ListContainersResponse,
    UpdateContainerRequest, UpdateContainerResponse, container,
};
use core_api::{Any, FieldMask};

use crate::{Talk, map, odd_any, same_talk};

pub(crate) const SERVICE: &str = "containers.v1.Containers";

fn any(kind: &str, value: &[u8]) -> Any {
    Any {
        type_url: kind.into(),
        value: value.into(),
    }
}

pub(crate) fn record(id: &str) -> Container {
    Container {
        id: id.into(),
        labels: map(&[("k", "v"), ("a.b/c", "x y")]),
        image: "image:1".into(),
        runtime: Some(container::Runtime {
            name: "io.containerd.runc.v2".into(),
            options: Some(odd_any()),
        }),
        spec: Some(any(
            "types.containerd.io/opencontainers/runtime-spec/1/Spec",
            b"{}",
        )),
        extensions: [("ext".to_owned(), odd_any())].into(),
        ..Container::default()
    }
}

pub(crate) async fn create(talk: &mut Talk, step: &str, container: Option<Container>) {
    let message = CreateContainerRequest { container };
    let _ = talk
        .ask::<_, CreateContainerResponse>(step, &format!("{SERVICE}/Create"), message)
        .await;
}

async fn get(talk: &mut Talk, step: &str, id: &str) {
    let message = GetContainerRequest { id: id.into() };
    let _ = talk
        .ask::<_, GetContainerResponse>(step, &format!("{SERVICE}/Get"), message)
        .await;
}

async fn delete(talk: &mut Talk, step: &str, id: &str) {
    let message = DeleteContainerRequest { id: id.into() };
    let _ = talk
        .ask::<_, ()>(step, &format!("{SERVICE}/Delete"), message)
        .await;
}

async fn update(talk: &mut Talk, step: &str, container: Container, paths: &[&str]) {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    let message = UpdateContainerRequest {
        container: Some(container),
        update_mask: (!paths.is_empty()).then_some(FieldMask { paths }),
    };
    let _ = talk
        .ask::<_, UpdateContainerResponse>(step, &format!("{SERVICE}/Update"), message)
        .await;
}

async fn creating(talk: &mut Talk) {
    create(talk, "create", Some(record("c1"))).await;
    create(talk, "create again", Some(record("c1"))).await;
    create(talk, "create nothing", None).await;
    create(talk, "create an empty record", Some(Container::default())).await;
    create(talk, "bad id", Some(record("a b"))).await;
    create(talk, "id of 76", Some(record(&"i".repeat(76)))).await;
    create(talk, "id of 77", Some(record(&"i".repeat(77)))).await;
    let changed = |change: &dyn Fn(&mut Container)| {
        let mut changed = record("c2");
        change(&mut changed);
        Some(changed)
    };
    create(talk, "no runtime", changed(&|c| c.runtime = None)).await;
    let nameless = changed(&|c| c.runtime = Some(container::Runtime::default()));
    create(talk, "nameless runtime", nameless).await;
    create(talk, "no spec", changed(&|c| c.spec = None)).await;
    create(
        talk,
        "key without snapshotter",
        changed(&|c| c.snapshot_key = "k".into()),
    )
    .await;
    let extension = changed(&|c| {
        c.extensions.insert(String::new(), odd_any());
    });
    create(talk, "nameless extension", extension).await;
    let long = changed(&|c| c.labels = map(&[("k", &"v".repeat(4096))]));
    create(talk, "long label", long).await;
    create(
        talk,
        "empty spec",
        changed(&|c| c.spec = Some(Any::default())),
    )
    .await;
    delete(talk, "delete it", "c2").await;
    let snapshot = changed(&|c| {
        c.snapshotter = "native".into();
        c.snapshot_key = "key".into();
        c.labels = map(&[("empty", "")]);
    });
    create(talk, "with a snapshot and an empty label", snapshot).await;
    create(talk, "odd spec", {
        let mut odd = record("c3");
        odd.spec = Some(odd_any());
        odd.labels.clear();
        odd.image.clear();
        odd.runtime = Some(container::Runtime {
            name: "x".into(),
            options: None,
        });
        Some(odd)
    })
    .await;
    for id in ["c1", "c2", "c3", "unknown", "", "a b"] {
        get(talk, &format!("get {id:?}"), id).await;
    }
    let nowhere = talk.peer.nowhere();
    let message = GetContainerRequest { id: "c1".into() };
    let _ = talk
        .ask_as::<_, GetContainerResponse>(
            &nowhere,
            "get nowhere",
            &format!("{SERVICE}/Get"),
            message,
        )
        .await;
    for namespace in ["other", "a..b", "", "a/b", &"n".repeat(77)] {
        let peer = talk.peer.of(namespace);
        let step = format!("in namespace {namespace:?}");
        let message = GetContainerRequest { id: "c1".into() };
        let _ = talk
            .ask_as::<_, GetContainerResponse>(&peer, &step, &format!("{SERVICE}/Get"), message)
            .await;
        let message = ListContainersRequest::default();
        let _ = talk
            .ask_as::<_, ListContainersResponse>(&peer, &step, &format!("{SERVICE}/List"), message)
            .await;
        let message = CreateContainerRequest {
            container: Some(record("c")),
        };
        let _ = talk
            .ask_as::<_, CreateContainerResponse>(
                &peer,
                &step,
                &format!("{SERVICE}/Create"),
                message,
            )
            .await;
    }
    delete(talk, "delete the unknown", "unknown").await;
    delete(talk, "delete the nameless", "").await;
    delete(talk, "delete the impossible", "a b").await;
}

async fn updating(talk: &mut Talk) {
    create(talk, "create", Some(record("c1"))).await;
    let new = || Container {
        labels: map(&[("k", "new"), ("more", "1"), ("e", "")]),
        image: "image:2".into(),
        spec: Some(odd_any()),
        snapshot_key: "key".into(),
        extensions: [
            ("ext".to_owned(), any("x", b"1")),
            ("two.dots/x".to_owned(), any("y", b"2")),
        ]
        .into(),
        ..record("c1")
    };
    for paths in [
        &["labels.k"] as &[&str],
        &["labels.more", "labels.none"],
        &["labels.e"],
        &["labels"],
        &["image"],
        &["spec"],
        &["extensions.two.dots/x"],
        &["extensions.ext"],
        &["extensions"],
        &["snapshotkey"],
        &["snapshot_key"],
        &["snapshotter"],
        &["runtime"],
        &["runtime.name"],
        &["runtime.options"],
        &["id"],
        &["created_at"],
        &["createdat"],
        &["updated_at"],
        &["sandbox"],
        &["sandbox_id"],
        &["nonsense"],
        &[""],
        &["labels."],
        &["Labels"],
        &["image", "nonsense"],
    ] {
        update(talk, &format!("mask {paths:?}"), new(), paths).await;
        get(talk, &format!("after {paths:?}"), "c1").await;
    }
    let changed = |change: &dyn Fn(&mut Container)| {
        let mut changed = new();
        change(&mut changed);
        changed
    };
    let runtime = |name: &str| {
        Some(container::Runtime {
            name: name.into(),
            options: None,
        })
    };
    update(
        talk,
        "no mask, snapshotter",
        changed(&|c| c.snapshotter = "s".into()),
        &[],
    )
    .await;
    update(
        talk,
        "no mask, runtime",
        changed(&|c| c.runtime = runtime("other")),
        &[],
    )
    .await;
    update(
        talk,
        "no mask, no runtime",
        changed(&|c| c.runtime = None),
        &[],
    )
    .await;
    update(talk, "no mask, key", new(), &[]).await;
    let options = changed(&|c| {
        c.runtime = runtime("io.containerd.runc.v2");
        c.snapshot_key.clear();
    });
    update(talk, "no mask, options", options, &[]).await;
    get(talk, "after no mask", "c1").await;
    update(
        talk,
        "no mask, no spec",
        changed(&|c| {
            c.spec = None;
            c.snapshot_key.clear();
        }),
        &[],
    )
    .await;
    update(
        talk,
        "mask, no spec",
        changed(&|c| c.spec = None),
        &["spec"],
    )
    .await;
    let long = changed(&|c| c.labels = map(&[("k", &"v".repeat(4096))]));
    update(talk, "mask, long label", long.clone(), &["labels.k"]).await;
    update(talk, "mask, long label elsewhere", long, &["image"]).await;
    let nameless = changed(&|c| {
        c.extensions.insert(String::new(), odd_any());
    });
    update(talk, "nameless extension", nameless, &["extensions"]).await;
    update(talk, "update the unknown", record("unknown"), &["image"]).await;
    update(talk, "update the nameless", record(""), &["image"]).await;
    update(talk, "update the impossible", record("a b"), &["image"]).await;
    let message = UpdateContainerRequest::default();
    let _ = talk
        .ask::<_, UpdateContainerResponse>("update nothing", &format!("{SERVICE}/Update"), message)
        .await;
    get(talk, "in the end", "c1").await;
    update(
        talk,
        "extension that is not given",
        new(),
        &["extensions.none"],
    )
    .await;
    let fewer = changed(&|c| c.extensions.clear());
    update(talk, "fewer extensions", fewer, &["extensions"]).await;
    get(talk, "after fewer extensions", "c1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_created_as_by_containerd() {
    same_talk!(creating, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_updated_as_by_containerd() {
    let why = "containerd 1.6 cannot take an extension away and stores an empty one instead";
    same_talk!(
        updating,
        &[
            ("extension that is not given", why),
            ("after fewer extensions", why),
        ]
    );
}
