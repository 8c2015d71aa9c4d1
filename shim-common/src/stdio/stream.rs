//! One output stream as the relay knows it, and the count of those still flowing.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::rc::{Rc, Weak};

use tokio::sync::Notify;

use super::watched::Watched;

/// How far an output stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The container may still write.
    Flowing,
    /// Everything is in the FIFO, which is kept alive for a reader that is away.
    AwaitingReader,
    /// All is delivered, or cannot be; descriptors are closed.
    Done,
}

/// What is known about one output stream. The task that copies it holds the descriptors; here
/// is only what others ask about or take away.
pub(super) struct Stream {
    name: &'static str,
    /// Where it goes, for people.
    pub(super) target: String,
    pub(super) phase: Cell<Phase>,
    pub(super) moved: Cell<u64>,
    /// Our own read end of the FIFO: while it exists, a reader that goes away breaks nothing.
    pub(super) own_reader: RefCell<Option<File>>,
    /// The container's pipe, where bytes may wait.
    pub(super) source: RefCell<Weak<Watched>>,
    /// Told when the relay stops caring for readers that may come back.
    pub(super) released: Notify,
    drain: Rc<Drain>,
}

impl Stream {
    pub(super) fn new(name: &'static str, target: String, drain: &Rc<Drain>) -> Rc<Self> {
        drain.flowing.set(drain.flowing.get() + 1);
        Rc::new(Self {
            name,
            target,
            phase: Cell::new(Phase::Flowing),
            moved: Cell::new(0),
            own_reader: RefCell::new(None),
            source: RefCell::new(Weak::new()),
            released: Notify::new(),
            drain: Rc::clone(drain),
        })
    }

    /// Counts bytes that went over.
    pub(super) fn count(&self, bytes: usize) {
        self.moved
            .set(self.moved.get().saturating_add(bytes as u64));
    }

    /// Moves on to `phase`; on leaving `Flowing` the stream counts as drained.
    pub(super) fn enter(&self, phase: Phase) {
        let before = self.phase.replace(phase);
        if before == Phase::Flowing && phase != Phase::Flowing {
            self.drain.one_drained();
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase.get() {
            Phase::Flowing => "flowing",
            Phase::AwaitingReader => "awaiting a reader",
            Phase::Done => "done",
        };
        let (name, target, moved) = (self.name, &self.target, self.moved.get());
        let in_pipe = match self.source.borrow().upgrade() {
            Some(source) => sys::pipe::unread_bytes(source.get_ref()).unwrap_or(0),
            None => 0,
        };
        let in_fifo = match &*self.own_reader.borrow() {
            Some(fifo) => sys::pipe::unread_bytes(fifo).unwrap_or(0),
            None => 0,
        };
        write!(
            f,
            "{name} -> {target}: {phase}, {moved} bytes moved, {in_pipe} in the pipe, \
             {in_fifo} in the FIFO"
        )
    }
}

/// Ends the stream whatever way its task ends, a panic included: a Delete must not wait for a
/// task that is gone.
pub(super) struct Ending(pub(super) Rc<Stream>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.own_reader.take();
        self.0.enter(Phase::Done);
    }
}

/// Counts the output streams that still flow, and tells when none does.
#[derive(Default)]
pub(super) struct Drain {
    flowing: Cell<usize>,
    callback: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Drain {
    pub(super) fn is_drained(&self) -> bool {
        self.flowing.get() == 0
    }

    /// Calls `callback` when nothing flows any more, which may be now.
    pub(super) fn when_drained(&self, callback: Box<dyn FnOnce()>) {
        self.callback.replace(Some(callback));
        self.tell();
    }

    /// Nobody wants to know any more.
    pub(super) fn forget(&self) {
        self.callback.take();
    }

    fn one_drained(&self) {
        self.flowing.set(self.flowing.get().saturating_sub(1));
        self.tell();
    }

    fn tell(&self) {
        if self.is_drained()
            && let Some(callback) = self.callback.take()
        {
            callback();
        }
    }
}
