//! The events a shim owes its daemon: one queue, in order, delivered at least once (design,
//! rule 4).
//!
//! The head of the queue is sent until the daemon has answered. A transport that fails is tried
//! again, with the same bytes; an answer that refuses the event is logged, and the next one is
//! sent. Publishing never waits. With an empty queue there are no timers and no wake-ups.

mod link;
mod queue;

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};
use tokio::sync::Notify;

use link::{Link, SendError};
use queue::{Entry, Queue};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(5);
/// The pause after the first failed try; doubled up to [`PAUSE_LIMIT`].
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// The outbox. Clones share it; it belongs to one thread.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    namespace: String,
    /// No daemon was named: events have nowhere to go.
    nowhere: bool,
    queue: RefCell<Queue>,
    /// Something was queued, or a flush wants the pause cut short.
    wake: Notify,
    /// The queue got shorter.
    sent: Notify,
    /// How many flushes wait: with one, pauses stay short.
    flushes: Cell<usize>,
}

impl Publisher {
    /// An outbox for the daemon at `address` (the value of TTRPC_ADDRESS: a path, perhaps with
    /// `unix://` before it, or an abstract name after `@`), on behalf of `namespace`. Starts the
    /// sender, so it must be called within a LocalSet. Without an address events are dropped.
    pub fn new(address: Option<&OsStr>, namespace: &str) -> Self {
        let address = address.filter(|a| !a.is_empty());
        let shared = Rc::new(Shared {
            namespace: namespace.to_owned(),
            nowhere: address.is_none(),
            queue: RefCell::default(),
            wake: Notify::new(),
            sent: Notify::new(),
            flushes: Cell::new(0),
        });
        match address {
            Some(address) => {
                let link = Link::new(address, namespace);
                tokio::task::spawn_local(send_all(Rc::clone(&shared), link));
            }
            None => log::warn!("publisher: no TTRPC_ADDRESS: events are dropped"),
        }
        Self { shared }
    }

    /// Queues an event of `topic`, its time being now. Never blocks, never fails; past 1 MiB of
    /// waiting events the least important ones go.
    pub fn publish(&self, topic: &'static str, event: Any) {
        if self.shared.nowhere {
            return;
        }
        // An OOM of the same container that still waits says all that another one would.
        let same = (topic == queue::OOM).then(|| event.value.clone());
        let mut envelope = Envelope::new();
        envelope.timestamp = MessageField::some(timestamp(SystemTime::now()));
        envelope.namespace.clone_from(&self.shared.namespace);
        topic.clone_into(&mut envelope.topic);
        envelope.event = MessageField::some(event);
        let mut request = ForwardRequest::new();
        request.envelope = MessageField::some(envelope);
        match request.write_to_bytes() {
            Ok(bytes) => self
                .shared
                .queue
                .borrow_mut()
                .push(Entry { topic, bytes, same }),
            Err(e) => log::error!("publisher: event {topic} cannot be encoded: {e}"),
        }
        self.shared.wake.notify_one();
    }

    /// How many events wait, the one being sent included.
    pub fn depth(&self) -> usize {
        self.shared.queue.borrow().len()
    }

    /// Waits until every event has left, `limit` at the longest. True if all have.
    pub async fn flush(&self, limit: Duration) -> bool {
        // A sender that pauses tries at once, and often from now on: there may be no later.
        let _flushing = Flushing::new(&self.shared);
        self.shared.wake.notify_one();
        tokio::time::timeout(limit, self.emptied()).await.is_ok()
    }

    /// Waits until every event has left, however long the daemon is away; hurries nothing.
    pub async fn emptied(&self) {
        loop {
            let sent = self.shared.sent.notified();
            if self.depth() == 0 {
                return;
            }
            sent.await;
        }
    }
}

/// Counts a flush as long as it lives, dropped ones included.
struct Flushing<'a>(&'a Shared);

impl<'a> Flushing<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.flushes.set(shared.flushes.get() + 1);
        Self(shared)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushes.set(self.0.flushes.get().saturating_sub(1));
    }
}

/// The sender: runs as long as the LocalSet does.
async fn send_all(shared: Rc<Shared>, mut link: Link) {
    loop {
        let head = shared.queue.borrow_mut().begin();
        let Some((topic, bytes)) = head else {
            shared.wake.notified().await;
            continue;
        };
        deliver(&shared, &mut link, topic, &bytes).await;
        shared.queue.borrow_mut().finish();
        shared.sent.notify_waiters();
    }
}

/// Sends one event until it is delivered or refused.
async fn deliver(shared: &Shared, link: &mut Link, topic: &str, event: &[u8]) {
    let mut pause = PAUSE;
    // An idle connection may have ended since; that is no failure of the daemon's, and a new one is
    // tried at once.
    let mut stale = link.is_open();
    loop {
        let result = tokio::time::timeout(TRY, link.forward(event, TRY)).await;
        let why = match result {
            Ok(Ok(())) => return,
            Ok(Err(SendError::Refused(why))) => {
                log::error!("publisher: the daemon refused an event of {topic}: {why}");
                return;
            }
            Ok(Err(SendError::Transport(why))) => why,
            Err(_) => format!("no answer within {} s", TRY.as_secs()),
        };
        // Whatever comes on this connection later answers a try that is over.
        link.close();
        if std::mem::take(&mut stale) {
            continue;
        }
        if pause == PAUSE {
            log::warn!("publisher: event of {topic} waits: {why}");
        }
        let rest = if shared.flushes.get() > 0 {
            PAUSE
        } else {
            pause
        };
        // Cut short by a flush; by a new event too, which does no harm: while the daemon is away
        // no call arrives, and only exits and OOMs are queued.
        let _cut_short = tokio::time::timeout(rest, shared.wake.notified()).await;
        pause = (pause * 2).min(PAUSE_LIMIT);
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
