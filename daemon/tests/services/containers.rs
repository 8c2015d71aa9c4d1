//! Records of containers, side by side.

use core_api::containers::{
    Container, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest,
    GetContainerRequest, GetContainerResponse, ListContainerMessage, ListContainersRequest,
    ListContainersResponse, UpdateContainerRequest, UpdateContainerResponse, container,
};
use core_api::{Any, FieldMask};

use crate::api::told;
use crate::{Talk, map, odd_any, same_talk};

const SERVICE: &str = "containers.v1.Containers";

fn any(kind: &str, value: &[u8]) -> Any {
    Any {
        type_url: kind.into(),
        value: value.into(),
    }
}

fn record(id: &str) -> Container {
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

async fn create(talk: &mut Talk, step: &str, container: Option<Container>) {
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

/// The ids that a filter lets pass, or the refusal.
async fn list(talk: &mut Talk, filters: &[&str]) {
    let message = ListContainersRequest {
        filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
    };
    let answer = talk
        .peer
        .call::<_, ListContainersResponse>(&format!("{SERVICE}/List"), message)
        .await
        .map(|list| {
            list.containers
                .into_iter()
                .map(|c| c.id)
                .collect::<Vec<_>>()
        });
    talk.note(&format!("list {filters:?}"), &told(&answer));
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

async fn listing(talk: &mut Talk) {
    list(talk, &[]).await;
    for id in ["c2", "c10", "C1", "c1", "b-a", "b.a", "ba"] {
        let mut labelled = record(id);
        labelled.labels.insert("id".to_owned(), id.to_owned());
        create(talk, &format!("create {id}"), Some(labelled)).await;
    }
    for filter in [
        "",
        "id==c1",
        "id!=c1",
        "id~=c1",
        "id~=^c",
        "id",
        "image",
        "snapshotkey",
        "snapshot_key",
        "snapshotter",
        "runtime",
        "runtime.name",
        "runtime.name==io.containerd.runc.v2",
        "runtime.name~=runc",
        "runtime.options",
        "labels",
        "labels.k",
        "labels.k==v",
        "labels.none",
        "labels.none!=x",
        "labels.id==c1",
        "labels.\"a.b/c\"",
        "labels.\"a.b/c\"==\"x y\"",
        "labels.a.b/c",
        "labels.a.b",
        "labels.\"a.b/c\"~=y$",
        "image==image:1",
        "image==\"image:1\"",
        "image~=|^image|",
        "image~=/^image/",
        "image~=\"^image\"",
        "image~=^image.1$",
        "id==c1,image==image:1",
        "id==c1,id==c2",
        "id==c1,",
        ",",
        ",id==c1",
        "id==",
        "id~=",
        "id!=",
        "==c1",
        "id=c1",
        "id= =c1",
        "id == c1",
        " id==c1",
        "id==c1 ",
        "id==c1, image==image:1",
        "id==c1 ,image==image:1",
        "id==c1 c2",
        "id~=(",
        "id~=[",
        "id~=c{1",
        "id~=|c1",
        "id~=|c1|x",
        "id==|c1|",
        "id==/c1/",
        "id==\"c1",
        "id==\"\"",
        "id!=\"\"",
        "id==\"\\x63\\x31\"",
        "id==\"\\143\\061\"",
        "id==\"\\u0063\\u0031\"",
        "id==\"c\\1\"",
        "id==\"\\q\"",
        "id~=|c\\|1|",
        "id~=\"\\\\d\"",
        "id~=\\d",
        "id~=|\\d|",
        "\"id\"==c1",
        "id.x==c1",
        "id.==c1",
        ".id==c1",
        "nonsense",
        "nonsense==x",
        "nonsense!=x",
        "1d==x",
        "_x==1",
        "a-b==1",
        "ü==1",
        "id==ü",
        "id~=ü",
        "id!=ü",
        "id==c1\u{0}",
        "id>c1",
        "!id",
        "id!c1",
        "id~c1",
        "id==c1|id==c2",
        "id==c1;",
        "id ",
        "id ,image",
        "id==.x",
        "id===c1",
        "id==!x",
        "id==~",
        "id==a=b",
        "id==a.b",
        "id==c1\"x",
        "id==c1/x",
        "id==c1|",
        "id==c1\t",
        "id==c1\u{a0}",
        "id== c1",
        "id. x==c1",
        "id .x",
        "id==\u{200b}",
        "id==c1\n",
        "id==#",
        "id==$x",
        "id==*",
        "id~=*",
        "id~=c*",
        "id==`c1`",
        "id!==c1",
        "id~=~",
        "id==b-a",
        "id==b.a",
        "id==😀",
        "runtime.name.x",
        "runtime.x",
        "image.x==image:1",
        "labels.k.x",
        "\"a\\x\"==1",
        "id==\"\\\"\"",
        "id==C1",
        "id~=(?i)^C1$",
        "id~=\\bc1\\b",
        "id~=(c)\\1",
        "id~=(?=c)",
        "id~=\\pL",
        "id~=[[:digit:]]",
        "id~=c1?",
        "id~=.",
        "id~=^$",
        "id~=c1,image==image:1",
        "id~=|c1,2|",
        "id~=c1{1,2}",
        "id==c+1",
        "id==a:b",
        "id==\"a,b\"",
        "extensions",
        "extensions.ext",
        "spec",
        "createdat",
        "id~=\"c1\"\"",
        "id~='c1'",
        "id=='c1'",
    ] {
        list(talk, &[filter]).await;
    }
    list(talk, &["id==c1", "id==c2"]).await;
    list(talk, &["id==c1", "id=="]).await;
    list(talk, &["id==nothing", "image==image:1,id~=a$"]).await;
    let message = ListContainersRequest::default();
    let stream = talk
        .peer
        .stream::<_, ListContainerMessage>(&format!("{SERVICE}/ListStream"), message)
        .await;
    let mut ids = Vec::new();
    let mut stream = stream.unwrap();
    while let Some(message) = stream.message().await.unwrap() {
        ids.push(message.container.unwrap().id);
    }
    talk.note("list as a stream", &format!("{ids:?}"));
    let message = ListContainersRequest {
        filters: vec!["id==".to_owned()],
    };
    let refused = match talk
        .peer
        .stream::<_, ListContainerMessage>(&format!("{SERVICE}/ListStream"), message)
        .await
    {
        Ok(mut stream) => stream.message().await.map(drop),
        Err(status) => Err(status),
    };
    talk.note("bad filter of a stream", &told(&refused));
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

#[tokio::test(flavor = "multi_thread")]
async fn records_are_filtered_as_by_containerd() {
    same_talk!(
        listing,
        &[(
            "list [\"id~=\\\\pL\"]",
            "regex-lite has no Unicode classes; tables for them would cost memory that no client needs",
        )]
    );
}
