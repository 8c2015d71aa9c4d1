//! Subscriptions to events, one for each filter, from a moment when all of them are known to be
//! there: containerd does not say so itself, and so events are published until each has come through.

use std::time::Duration;

use core_api::events_service::{Envelope, PublishRequest, SubscribeRequest};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::api::{CALL_LIMIT, Peer};
use crate::odd_any;

/// Published until every subscription has seen it.
const PROBE: &str = "/a/probe";
/// The topic of the event that ends each subscription.
pub(crate) const LAST: &str = "/the/last";

/// A filter, and what its subscription sees.
pub(crate) type Watcher = (String, tokio::task::JoinHandle<Vec<Envelope>>);

/// What a subscription sees up to and with [`LAST`]; tells of the first [`PROBE`].
async fn watch(peer: Peer, filter: String, probed: mpsc::UnboundedSender<()>) -> Vec<Envelope> {
    let message = SubscribeRequest {
        filters: vec![
            filter,
            format!("topic==\"{PROBE}\""),
            format!("topic==\"{LAST}\""),
        ],
    };
    let stream = peer
        .stream::<_, Envelope>("events.v1.Events/Subscribe", message)
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
        let is_last = event.topic == LAST;
        seen.push(event);
        if is_last {
            return seen;
        }
    }
}

/// Subscribes with each filter; all subscriptions are there when this returns.
pub(crate) async fn subscribe(peer: &Peer, filters: &[&str]) -> Vec<Watcher> {
    let (probed, mut probes) = mpsc::unbounded_channel();
    let mut subscriptions = Vec::new();
    for filter in filters {
        let watcher = watch(peer.clone(), (*filter).to_owned(), probed.clone());
        let seen = async { timeout(CALL_LIMIT, watcher).await.unwrap() };
        subscriptions.push(((*filter).to_owned(), tokio::spawn(seen)));
    }
    let mut there = 0;
    while there < subscriptions.len() {
        publish(peer, PROBE).await;
        let wait = Duration::from_millis(20);
        while there < subscriptions.len()
            && matches!(timeout(wait, probes.recv()).await, Ok(Some(())))
        {
            there += 1;
        }
    }
    subscriptions
}

/// Publishes an event of no known kind.
pub(crate) async fn publish(peer: &Peer, topic: &str) {
    let message = PublishRequest {
        topic: topic.to_owned(),
        event: Some(odd_any()),
    };
    let () = peer
        .call("events.v1.Events/Publish", message)
        .await
        .unwrap();
}
