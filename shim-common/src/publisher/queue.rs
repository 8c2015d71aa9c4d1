//! The waiting events: first in, first out, of bounded size.

use std::collections::VecDeque;

/// The topic of OOM events.
pub(super) const OOM: &str = "/tasks/oom";

/// How much may wait, in bytes.
pub(super) const LIMIT: usize = 1 << 20;

/// One event, encoded: a retry sends the same bytes.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its topic.
    pub(super) topic: &'static str,
    /// The encoded ForwardRequest.
    pub(super) bytes: Vec<u8>,
    /// What makes it the same as another one of its topic; `None` for topics that are not
    /// coalesced.
    pub(super) same: Option<Vec<u8>>,
}

/// The queue. Its head may be on its way, in `sending`; it then counts as waiting still.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Entry>,
    sending: bool,
    bytes: usize,
}

impl Queue {
    /// Appends an event, unless one that says the same waits already.
    pub(super) fn push(&mut self, entry: Entry) {
        let said =
            |e: &Entry| entry.same.is_some() && e.topic == entry.topic && e.same == entry.same;
        if self.waiting.iter().any(said) {
            return;
        }
        self.bytes += entry.bytes.len();
        self.waiting.push_back(entry);
        while self.bytes > LIMIT && self.waiting.len() > 1 {
            self.drop_least();
        }
    }

    /// Takes the head to send it: its topic and bytes. It stays counted until [`Self::finish`].
    pub(super) fn begin(&mut self) -> Option<(&'static str, Vec<u8>)> {
        let head = self.waiting.pop_front()?;
        self.bytes -= head.bytes.len();
        self.sending = true;
        if self.waiting.is_empty() {
            // A burst's room is given back: an idle shim keeps none.
            self.waiting = VecDeque::new();
        }
        Some((head.topic, head.bytes))
    }

    /// The head has left.
    pub(super) fn finish(&mut self) {
        self.sending = false;
    }

    /// How many events have not left yet.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.sending)
    }

    /// Drops the oldest of the least important events.
    fn drop_least(&mut self) {
        let least = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(at, e)| (rank(e.topic), *at));
        let Some((at, _)) = least else { return };
        if let Some(entry) = self.waiting.remove(at) {
            self.bytes -= entry.bytes.len();
            log::error!(
                "publisher: more than {LIMIT} bytes wait: one of {} is dropped",
                entry.topic
            );
        }
    }
}

/// How much an event matters when not all can be kept: clients can do without the beginnings of
/// execs, and hang without an end.
fn rank(topic: &str) -> u8 {
    match topic {
        "/tasks/exec-added" | "/tasks/exec-started" => 0,
        "/tasks/paused" | "/tasks/resumed" | "/tasks/checkpointed" => 1,
        "/tasks/create" | "/tasks/start" | OOM => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(topic: &'static str, size: usize) -> Entry {
        Entry {
            topic,
            bytes: vec![0; size],
            same: None,
        }
    }

    fn topics(queue: &mut Queue) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.begin().map(|(topic, _)| topic)).collect()
    }

    #[test]
    fn ooms_of_one_container_are_coalesced() {
        let mut q = Queue::default();
        for id in ["a", "b", "a"] {
            q.push(Entry {
                same: Some(id.into()),
                ..entry(OOM, 10)
            });
            q.push(entry("/tasks/exit", 10));
        }
        let exit = "/tasks/exit";
        assert_eq!(topics(&mut q), [OOM, exit, OOM, exit, exit]);
        // One that has been taken to be sent says nothing about a later one.
        q.push(Entry {
            same: Some("a".into()),
            ..entry(OOM, 10)
        });
        q.begin();
        q.push(Entry {
            same: Some("a".into()),
            ..entry(OOM, 10)
        });
        assert_eq!(q.len(), 2);
    }

    #[test]
    fn beyond_the_limit_the_beginnings_of_execs_go_first() {
        let mut q = Queue::default();
        let part = LIMIT / 4;
        q.push(entry("/tasks/exit", part));
        q.push(entry("/tasks/exec-added", part));
        q.push(entry("/tasks/paused", part));
        q.push(entry("/tasks/exec-started", part));
        q.push(entry("/tasks/exit", part));
        assert_eq!(q.len(), 4);
        q.push(entry("/tasks/delete", part));
        q.push(entry("/tasks/exit", part));
        assert_eq!(
            topics(&mut q),
            ["/tasks/exit", "/tasks/exit", "/tasks/delete", "/tasks/exit"]
        );
        assert_eq!(q.bytes, 0);
    }
}
