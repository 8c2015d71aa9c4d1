//! Events, side by side: what may be published and forwarded, and which subscriptions see it.

use core_api::events::{ContainerCreate, NamespaceCreate, container_create};
use core_api::events_service::{Envelope, ForwardRequest, PublishRequest, SubscribeRequest};
use core_api::prost::Message;
use core_api::{Any, Timestamp};
use protobuf::Message as _;
use tokio::time::timeout;

use crate::api::{CALL_LIMIT, told};
use crate::watchers::{LAST, subscribe};
use crate::{Talk, map, odd_any, same_talk};

const SERVICE: &str = "events.v1.Events";
async fn publish(talk: &mut Talk, topic: &str, event: Option<Any>) {
    let topic = topic.to_owned();
    let step = format!("publish {topic:?}");
    let message = PublishRequest { topic, event };
    let _ = talk
        .ask::<_, ()>(&step, &format!("{SERVICE}/Publish"), message)
        .await;
}

async fn forward(talk: &mut Talk, step: &str, envelope: Option<Envelope>) {
    let message = ForwardRequest { envelope };
    let _ = talk
        .ask::<_, ()>(step, &format!("{SERVICE}/Forward"), message)
        .await;
}

fn known(name: &str, message: &impl Message) -> Option<Any> {
    Some(Any {
        type_url: format!("containerd.events.{name}"),
        value: message.encode_to_vec(),
    })
}

/// Publishes events of every kind, good and bad; none without an event, of which containerd 1.6
/// dies.
async fn tell(talk: &mut Talk, namespace: &str) {
    let create = ContainerCreate {
        id: "c1".into(),
        image: "image:1".into(),
        runtime: Some(container_create::Runtime {
            name: "runc".into(),
            options: Some(odd_any()),
        }),
    };
    publish(
        talk,
        "/containers/create",
        known("ContainerCreate", &create),
    )
    .await;
    let create = NamespaceCreate {
        name: "n1".into(),
        labels: map(&[("k", "v")]),
    };
    publish(
        talk,
        "/namespaces/create",
        known("NamespaceCreate", &create),
    )
    .await;
    let exit = task_api::events::TaskExit {
        container_id: "c1".into(),
        id: "e1".into(),
        pid: 7,
        exit_status: 3,
        ..Default::default()
    };
    let exit = Any {
        type_url: "containerd.events.TaskExit".into(),
        value: exit.write_to_bytes().unwrap(),
    };
    publish(talk, "/tasks/exit", Some(exit.clone())).await;
    publish(talk, "/odd/one", Some(odd_any())).await;
    for topic in [
        "",
        "x",
        "/",
        "//",
        "/a b",
        "/a/",
        "/a//b",
        "/a..b",
        "/ü",
        &format!("/{}", "t".repeat(77)),
    ] {
        publish(talk, topic, Some(odd_any())).await;
    }
    let whole = Envelope {
        timestamp: Some(Timestamp {
            seconds: 1,
            nanos: 2,
        }),
        namespace: namespace.to_owned(),
        topic: "/tasks/exit".into(),
        event: Some(exit),
    };
    let changed = |change: &dyn Fn(&mut Envelope)| {
        let mut changed = whole.clone();
        change(&mut changed);
        Some(changed)
    };
    forward(talk, "forward", Some(whole.clone())).await;
    forward(
        talk,
        "forward elsewhere",
        changed(&|e| e.namespace = "elsewhere".into()),
    )
    .await;
    forward(talk, "no time", changed(&|e| e.timestamp = None)).await;
    forward(
        talk,
        "time of nothing",
        changed(&|e| e.timestamp = Some(Timestamp::default())),
    )
    .await;
    forward(talk, "no namespace", changed(&|e| e.namespace.clear())).await;
    forward(
        talk,
        "bad namespace",
        changed(&|e| e.namespace = "a/b".into()),
    )
    .await;
    forward(talk, "no topic", changed(&|e| e.topic.clear())).await;
    forward(talk, "bad topic", changed(&|e| e.topic = "/a b".into())).await;
    let peer = talk.peer.clone();
    talk.peer = peer.nowhere();
    forward(talk, "forward from nowhere", Some(whole.clone())).await;
    publish(talk, "/nowhere/to", Some(odd_any())).await;
    talk.peer = peer;
    publish(talk, LAST, Some(odd_any())).await;
}

async fn conversation(talk: &mut Talk) {
    let namespace = talk.peer.namespace.clone().unwrap();
    let filters = [
        "",
        &format!("namespace=={namespace}"),
        &format!("namespace=={namespace},topic~=|^/tasks/|"),
        "namespace==elsewhere",
        "topic==\"/odd/one\"",
        "topic",
        "topic.x==\"/odd/one\"",
        "event",
        "event.id",
        "event.id==c1",
        "event.id==e1",
        "event.image==image:1",
        "event.runtime.name==runc",
        "event.container_id==c1",
        "event.container_id==c1,event.id==e1",
        "event.pid==7",
        "event.exit_status==3",
        "event.name==n1",
        "event.labels.k==v",
        "event.nonsense!=x",
        "nonsense",
        "timestamp",
    ];
    let subscriptions = subscribe(&talk.peer, &filters).await;
    for filter in ["topic==", "topic=x", "=="] {
        let message = SubscribeRequest {
            filters: vec![filter.to_owned()],
        };
        let method = format!("{SERVICE}/Subscribe");
        let asked = talk.peer.stream::<_, Envelope>(&method, message);
        let refused = match timeout(CALL_LIMIT, asked).await.unwrap() {
            Ok(mut stream) => stream.message().await.map(drop),
            Err(status) => Err(status),
        };
        talk.note(&format!("subscribe to {filter:?}"), &told(&refused));
    }
    tell(talk, &namespace).await;
    for (filter, seen) in subscriptions {
        let seen = seen.await.unwrap();
        let seen: Vec<String> = seen.iter().map(|event| format!("{event:?}")).collect();
        let filter = filter.replace(&namespace, "NS");
        talk.note(&format!("seen by {filter:?}"), &seen.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_passed_on_as_by_containerd() {
    let code = "a bad filter is a bad argument everywhere; containerd loses that here";
    same_talk!(
        conversation,
        &[
            ("subscribe to \"topic==\"", code),
            ("subscribe to \"topic=x\"", code),
            ("subscribe to \"==\"", code),
        ]
    );
}
