//! Events, side by side: what may be published and forwarded, and which subscriptions see it.

use core_api::events::{ContainerCreate, NamespaceCreate, container_create};
use core_api::events_service::{Envelope, ForwardRequest, PublishRequest, SubscribeRequest};
use core_api::prost::Message;
use core_api::{Any, Timestamp};
use protobuf::Message as _;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::api::{CALL_LIMIT, Peer, told};
use crate::{Talk, map, odd_any, same_talk};

const SERVICE: &str = "events.v1.Events";
/// Published until every subscription is seen to be there: containerd does not say so itself.
const PROBE: &str = "/a/probe";
const LAST: &str = "/the/last";

/// What a subscription sees up to [`LAST`]; tells of the first [`PROBE`].
async fn watch(peer: Peer, filter: String, probed: mpsc::UnboundedSender<()>) -> Vec<String> {
    let message = SubscribeRequest {
        filters: vec![
            filter,
            format!("topic==\"{PROBE}\""),
            format!("topic==\"{LAST}\""),
        ],
    };
    let stream = peer
        .stream::<_, Envelope>(&format!("{SERVICE}/Subscribe"), message)
        .await;
    let mut stream = stream.unwrap();
    let mut seen = Vec::new();
    let mut probed = Some(probed);
    loop {
        let event = stream.message().await.unwrap().unwrap();
        if event.topic == PROBE {
            probed.take().map(|probed| probed.send(()));
            continue;
        }
        seen.push(format!("{event:?}"));
        if event.topic == LAST {
            return seen;
        }
    }
}

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
    let (probed, mut probes) = mpsc::unbounded_channel();
    let mut subscriptions = Vec::new();
    for filter in [
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
    ] {
        let watcher = watch(talk.peer.clone(), filter.to_owned(), probed.clone());
        let seen = timeout(CALL_LIMIT, watcher);
        subscriptions.push((filter.replace(&namespace, "NS"), tokio::spawn(seen)));
    }
    let mut there = 0;
    while there < subscriptions.len() {
        let message = PublishRequest {
            topic: PROBE.to_owned(),
            event: Some(odd_any()),
        };
        let method = format!("{SERVICE}/Publish");
        let () = talk.peer.call(&method, message).await.unwrap();
        let wait = Duration::from_millis(20);
        while there < subscriptions.len()
            && matches!(timeout(wait, probes.recv()).await, Ok(Some(())))
        {
            there += 1;
        }
    }
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
        let seen = seen.await.unwrap().unwrap();
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
