//! Events that a client misses because the daemon was away: a container that ends meanwhile is
//! told of by its shim as soon as the daemon is back, and that is before any client has
//! subscribed again. Docker does not ask how its containers are then; it would wait for ever.
//!
//! So, for a while after the start, the ends of tasks that were there before it are kept and
//! handed to each new subscriber. A subscriber may be told twice of an end, never not at all.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_api::events::ContainerDelete;
use core_api::events_service::Envelope;
use prost::Message;
use task_api::events::topic;

/// For how long clients may come back: Go's clients wait for at most 3 s between attempts.
const GRACE: Duration = Duration::from_secs(20);
/// How many events are kept.
const LIMIT: usize = 4096;

/// What is kept.
#[derive(Debug)]
pub struct Missed {
    /// Namespace and id of the tasks that were there at the start.
    tasks: HashSet<(String, String)>,
    events: Vec<Arc<Envelope>>,
    until: Instant,
}

impl Missed {
    /// From now on ends of `tasks` are kept.
    pub fn of(tasks: HashSet<(String, String)>) -> Self {
        Self {
            tasks,
            events: Vec::new(),
            until: Instant::now() + GRACE,
        }
    }

    /// Whether nobody comes back any more.
    pub fn is_over(&self) -> bool {
        self.tasks.is_empty() || Instant::now() >= self.until
    }

    /// Keeps an event if it is one of those.
    pub fn note(&mut self, envelope: &Arc<Envelope>) {
        let of = |envelope: &Envelope| {
            // Field 1 of every event of a task is the container's id.
            let id = ContainerDelete::decode(envelope.event.as_ref()?.value.as_slice()).ok()?;
            Some((envelope.namespace.clone(), id.id))
        };
        match envelope.topic.as_str() {
            topic::EXIT | topic::OOM | topic::DELETE => {
                let known = of(envelope).is_some_and(|task| self.tasks.contains(&task));
                if known && self.events.len() < LIMIT {
                    self.events.push(envelope.clone());
                }
            }
            topic::CREATE => {
                // Another task of that name: the end of the one before is nobody's concern.
                if let Some(task) = of(envelope)
                    && self.tasks.remove(&task)
                {
                    self.events
                        .retain(|event| of(event).as_ref() != Some(&task));
                }
            }
            _ => {}
        }
    }

    /// What was kept, in order.
    pub fn events(&self) -> &[Arc<Envelope>] {
        &self.events
    }
}
