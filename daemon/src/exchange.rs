//! The exchange of events: what shims forward and the daemon publishes goes to every subscriber
//! whose filters it passes, in order.
//!
//! A subscriber that does not read is not waited for. Its queue is bounded; when it is full the
//! subscription ends with `ResourceExhausted`, so that the client knows that it has missed events
//! instead of the daemon growing without end.

mod fields;

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use core_api::Any;
use core_api::events_service::Envelope;
use prost::Message;
use task_api::events::TaskEvent;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use crate::filter::Filters;
use crate::missed::Missed;
use crate::{ids, status};

/// How many events may wait for one subscriber.
const QUEUE: usize = 8192;
/// How large they may be together, in bytes.
const QUEUE_BYTES: usize = 8 << 20;

/// All subscribers.
#[derive(Debug, Default)]
pub struct Exchange {
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    subscribers: HashMap<u64, Subscriber>,
    /// What those are told who come back after the daemon was away.
    missed: Option<Missed>,
}

impl State {
    /// What was missed, for as long as somebody may come back.
    fn missed(&mut self) -> Option<&mut Missed> {
        if self.missed.as_ref().is_some_and(Missed::is_over) {
            self.missed = None;
        }
        self.missed.as_mut()
    }
}

#[derive(Debug)]
struct Subscriber {
    filters: Filters,
    /// The filters as the client wrote them.
    asked: String,
    /// How large the events are that wait.
    bytes: Arc<AtomicUsize>,
    queue: mpsc::Sender<Arc<Envelope>>,
    lagged: Arc<AtomicBool>,
}

impl Exchange {
    /// Hands `envelope` to everybody who wants it. Never waits.
    ///
    /// # Errors
    /// `InvalidArgument` for a namespace, topic or time that no event can have.
    pub fn forward(&self, envelope: Envelope) -> Result<(), Status> {
        ids::check(&envelope.namespace)?;
        ids::check_topic(&envelope.topic)?;
        if envelope.timestamp.is_none() {
            return Err(status::invalid("timestamp must be set on forwarded event"));
        }
        self.hand_out(envelope);
        Ok(())
    }

    /// Publishes an event of the daemon itself, of this moment.
    pub fn publish(&self, namespace: &str, topic: &str, event: Any) {
        self.hand_out(Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: namespace.to_owned(),
            topic: topic.to_owned(),
            event: Some(event),
        });
    }

    /// Publishes a message under its name, as Go's typeurl writes it.
    pub fn publish_message(&self, ns: &str, topic: &str, name: &str, message: &impl Message) {
        let event = Any {
            type_url: format!("containerd.events.{name}"),
            value: message.encode_to_vec(),
        };
        self.publish(ns, topic, event);
    }

    /// Publishes an event of a task in place of a shim that cannot do so any more.
    pub fn publish_task(&self, namespace: &str, event: &TaskEvent) {
        match event.to_any() {
            Ok(any) => {
                let any = Any {
                    type_url: any.type_url,
                    value: any.value,
                };
                self.publish(namespace, event.topic(), any);
            }
            Err(error) => log::error!("event {} of {namespace}: {error}", event.topic()),
        }
    }

    /// A subscription to the events that pass `filters`, from this moment on.
    pub fn subscribe(self: &Arc<Self>, filters: Filters) -> Subscription {
        let asked = filters.to_string();
        let bytes = Arc::new(AtomicUsize::new(0));
        let (queue, events) = mpsc::channel(QUEUE);
        let lagged = Arc::new(AtomicBool::new(false));
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let subscriber = Subscriber {
            filters,
            asked,
            bytes: bytes.clone(),
            queue,
            lagged: lagged.clone(),
        };
        let mut state = self.locked();
        let missed = state.missed().map(|missed| missed.events().to_vec());
        if missed
            .unwrap_or_default()
            .iter()
            .all(|event| subscriber.take(event))
        {
            state.subscribers.insert(key, subscriber);
        }
        drop(state);
        Subscription {
            exchange: self.clone(),
            key,
            events,
            bytes,
            lagged,
            ended: false,
        }
    }

    /// What every subscriber asked for, and how many events wait for it.
    pub fn subscribers(&self) -> Vec<(String, usize)> {
        self.locked()
            .subscribers
            .values()
            .map(|subscriber| {
                let queue = &subscriber.queue;
                let waiting = queue.max_capacity() - queue.capacity();
                (subscriber.asked.clone(), waiting)
            })
            .collect()
    }

    fn hand_out(&self, envelope: Envelope) {
        let envelope = Arc::new(envelope);
        let mut state = self.locked();
        if let Some(missed) = state.missed() {
            missed.note(&envelope);
        }
        state
            .subscribers
            .retain(|_, subscriber| subscriber.take(&envelope));
    }

    /// From now on, and for a while, the ends of `tasks` are also told to who subscribes later.
    pub fn keep_ends_of(&self, tasks: HashSet<(String, String)>) {
        self.locked().missed = Some(Missed::of(tasks));
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Takes an event if it is wanted. Answers whether the subscription goes on.
    fn take(&self, envelope: &Arc<Envelope>) -> bool {
        if !self.filters.hold(&**envelope) {
            return true;
        }
        let size = envelope.encoded_len();
        let waiting = self.bytes.fetch_add(size, Ordering::AcqRel);
        let sent = if waiting + size > QUEUE_BYTES && waiting > 0 {
            Err(mpsc::error::TrySendError::Full(envelope.clone()))
        } else {
            self.queue.try_send(envelope.clone())
        };
        if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
            self.lagged.store(true, Ordering::Release);
        }
        sent.is_ok()
    }
}

/// The events of one subscriber; it ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    exchange: Arc<Exchange>,
    key: u64,
    events: mpsc::Receiver<Arc<Envelope>>,
    bytes: Arc<AtomicUsize>,
    lagged: Arc<AtomicBool>,
    ended: bool,
}

impl Stream for Subscription {
    type Item = Result<Envelope, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.events.poll_recv(cx).map(|event| match event {
            Some(event) => {
                self.bytes.fetch_sub(event.encoded_len(), Ordering::AcqRel);
                Some(Ok(Arc::unwrap_or_clone(event)))
            }
            None => {
                self.ended = true;
                self.lagged.load(Ordering::Acquire).then(|| {
                    Err(Status::resource_exhausted(
                        "events were not read and have been dropped",
                    ))
                })
            }
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.exchange.locked().subscribers.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_api::events::ContainerDelete;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn a_subscriber_that_does_not_read_is_told_and_dropped() {
        let exchange = Arc::new(Exchange::default());
        let mut idle = exchange.subscribe(Filters::parse::<&str>(&[]).unwrap());
        let other = exchange.subscribe(Filters::parse(&["topic==x"]).unwrap());
        for _ in 0..=QUEUE {
            exchange.publish("ns", "/tasks/exit", Any::default());
        }
        assert_eq!(
            exchange.locked().subscribers.len(),
            1,
            "the other one stays"
        );
        for _ in 0..QUEUE {
            idle.next().await.unwrap().unwrap();
        }
        let end = idle.next().await.unwrap().unwrap_err();
        assert_eq!(end.code(), tonic::Code::ResourceExhausted);
        assert!(idle.next().await.is_none());
        drop(other);
        assert!(exchange.locked().subscribers.is_empty());
    }

    #[tokio::test]
    async fn large_events_do_not_add_up() {
        let exchange = Arc::new(Exchange::default());
        let mut idle = exchange.subscribe(Filters::parse::<&str>(&[]).unwrap());
        let large = Any {
            type_url: String::new(),
            value: vec![0; QUEUE_BYTES / 4],
        };
        for _ in 0..9 {
            exchange.publish("ns", "/tasks/exit", large.clone());
        }
        for _ in 0..3 {
            idle.next().await.unwrap().unwrap();
        }
        let end = idle.next().await.unwrap().unwrap_err();
        assert_eq!(end.code(), tonic::Code::ResourceExhausted);

        // One that reads is handed any number of them.
        let mut reader = exchange.subscribe(Filters::parse::<&str>(&[]).unwrap());
        for _ in 0..9 {
            exchange.publish("ns", "/tasks/exit", large.clone());
            reader.next().await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn the_end_of_a_task_is_told_to_who_comes_back() {
        let exchange = Arc::new(Exchange::default());
        let key = ("ns".to_owned(), "c".to_owned());
        exchange.keep_ends_of([key].into());
        let event = |name: &str, id: &str| Any {
            type_url: format!("containerd.events.{name}"),
            value: ContainerDelete { id: id.to_owned() }.encode_to_vec(),
        };
        let all = || exchange.subscribe(Filters::parse::<&str>(&[]).unwrap());
        exchange.publish("ns", "/tasks/exit", event("TaskExit", "c"));
        exchange.publish("ns", "/tasks/exit", event("TaskExit", "of another start"));
        exchange.publish("other", "/tasks/exit", event("TaskExit", "c"));
        let waiting = |subscription: Subscription| subscription.events.len();
        assert_eq!(waiting(all()), 1);
        let other = exchange.subscribe(Filters::parse(&["namespace==other"]).unwrap());
        assert_eq!(waiting(other), 0);
        exchange.publish("ns", "/tasks/create", event("TaskCreate", "c"));
        exchange.publish("ns", "/tasks/exit", event("TaskExit", "c"));
        assert_eq!(waiting(all()), 0, "that was another task");
    }
}
