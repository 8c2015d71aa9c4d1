//! The relay of one process's streams: what runs while the process does, and until its last
//! byte is delivered.

use std::cell::Cell;
use std::fmt::Write;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};

use tokio::task::{JoinHandle, spawn_local};

use super::binary::{Logger, Stopping};
use super::console::Master;
use super::stdin::{Hold, Input};
use super::stream::{Drain, Ending, Phase, Stream};
use super::terminal::{Terminal, relay_input, relay_output};
use super::watched::Watched;

/// A task of the relay: copies one stream or watches a logger.
type Job = Pin<Box<dyn Future<Output = ()>>>;

/// Copies the streams of one process. Lives in a `LocalSet`; dropping it closes everything.
#[derive(Default)]
pub struct Relay {
    pub(super) drain: Rc<Drain>,
    pub(super) jobs: Vec<(Task, Job)>,
    pub(super) hold: Option<Hold>,
    pub(super) logger: Option<Rc<Logger>>,
    pub(super) console: Console,
    pub(super) exited: Rc<Cell<bool>>,
    tasks: Vec<(Task, JoinHandle<()>)>,
}

/// What a task of the relay does.
#[derive(Clone)]
pub(super) enum Task {
    Input,
    Output(Rc<Stream>),
}

/// The terminal of the process, if it has one.
#[derive(Default)]
pub(super) enum Console {
    #[default]
    None,
    /// The client's side waits for the master.
    Awaited {
        input: Option<Input>,
        sink: Watched,
        stream: Rc<Stream>,
    },
    /// The copying tasks own the master: with the last of them it is closed, at the exit of the
    /// process and not at Delete (containerd #11160).
    Attached(Weak<Terminal>),
}

impl Relay {
    /// Begins to copy; to be called as soon as the runtime was given the container's ends.
    /// `on_drained` is called once, when every output stream has reached its end (all writers in
    /// the container are gone; for a terminal: the process has) and each of its bytes is
    /// delivered, waits in a FIFO for its reader, or can no longer be delivered. With no output
    /// that is now. It must not call back into this relay.
    pub fn start(&mut self, on_drained: impl FnOnce() + 'static) {
        self.spawn_jobs();
        self.drain.when_drained(Box::new(on_drained));
    }

    /// Connects the terminal's master with the client's FIFOs. Without a terminal in the request
    /// the master is closed, which hangs it up.
    pub fn attach(&mut self, master: Master) -> io::Result<()> {
        let Console::Awaited { .. } = self.console else {
            return Ok(());
        };
        let terminal = Rc::new(Terminal::new(master.0)?);
        if self.exited.get() {
            terminal.process_exited();
        }
        let attached = Console::Attached(Rc::downgrade(&terminal));
        if let Console::Awaited {
            input,
            sink,
            stream,
        } = std::mem::replace(&mut self.console, attached)
        {
            if let Some(input) = input {
                let job = relay_input(Rc::clone(&terminal), input);
                self.jobs.push((Task::Input, Box::pin(job)));
            }
            let task = Task::Output(Rc::clone(&stream));
            let job = relay_output(terminal, sink, stream);
            self.jobs.push((task, Box::pin(job)));
        }
        self.spawn_jobs();
        Ok(())
    }

    /// Lets go of the client's stdin FIFO (CloseIO): the process sees the end of its input when
    /// the last client has closed it too.
    pub fn close_stdin(&mut self) {
        if let Some(hold) = &self.hold {
            hold.take();
        }
    }

    /// Sets the size of the terminal in characters; without a terminal this succeeds (contract,
    /// ResizePty).
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        match &self.console {
            Console::Attached(terminal) => match terminal.upgrade() {
                Some(terminal) => sys::tty::set_window_size(&terminal.master, width, height),
                None => Ok(()),
            },
            Console::None | Console::Awaited { .. } => Ok(()),
        }
    }

    /// The process has exited: its input is closed (nothing is left of a client that never said
    /// CloseIO, containerd #8856), and a terminal's silence is now its end.
    pub fn process_exited(&mut self) {
        self.exited.set(true);
        self.close_stdin();
        match &self.console {
            Console::Attached(terminal) => {
                if let Some(terminal) = terminal.upgrade() {
                    terminal.process_exited();
                }
            }
            // A short-lived process may be gone before its master was taken from the socket:
            // what it wrote is in there.
            Console::Awaited { .. } | Console::None => {}
        }
        for (task, handle) in &self.tasks {
            if let Task::Input = task {
                handle.abort();
            }
        }
        self.jobs.retain(|(task, _)| !matches!(task, Task::Input));
    }

    /// Whether all output is delivered, as [`Relay::start`] says.
    pub fn is_drained(&self) -> bool {
        self.drain.is_drained()
    }

    /// The process is deleted: from now on each stream lives only as long as somebody outside
    /// reads it. A stream without a reader ends at once, others when their reader goes, and that
    /// counts as drained. A terminal that never came, that of a process which could not be
    /// started, is not awaited any longer, and a logger is ended as [`Relay::shut`] says.
    pub fn release_readers(&mut self) {
        self.console = match std::mem::take(&mut self.console) {
            Console::Awaited { stream, .. } => {
                drop(Ending(stream));
                Console::None
            }
            other => other,
        };
        self.stop_logger();
        for (task, handle) in &self.tasks {
            if let Task::Output(stream) = task {
                stream.own_reader.take();
                stream.released.notify_one();
                if stream.phase.get() == Phase::AwaitingReader {
                    handle.abort();
                }
            }
        }
    }

    /// Ends everything: descriptors are closed, undelivered bytes are dropped, `on_drained` is
    /// forgotten, a logger still alive gets SIGTERM after a second and SIGKILL after twelve more,
    /// by a task of its own; if the `LocalSet` ends before, it gets SIGTERM then.
    pub fn shut(mut self) {
        self.stop_logger();
    }

    fn stop_logger(&mut self) {
        if let Some(logger) = self.logger.take() {
            self.exited.set(true);
            spawn_local(Stopping(logger).stop());
        }
    }

    /// One line per open stream, for the log.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let held = |hold: &Hold| {
            if hold.borrow().is_some() {
                "held"
            } else {
                "closed"
            }
        };
        if let Some(hold) = &self.hold {
            let _ = writeln!(text, "stdin: {}", held(hold));
        }
        let tasks = self.tasks.iter().map(|(task, _)| task);
        for task in tasks.chain(self.jobs.iter().map(|(task, _)| task)) {
            if let Task::Output(stream) = task {
                let _ = writeln!(text, "{stream}");
            }
        }
        if let Console::Awaited { stream, .. } = &self.console {
            let _ = writeln!(text, "{stream}; the terminal is awaited");
        }
        if let Some(logger) = &self.logger {
            let _ = writeln!(text, "{logger}");
        }
        text
    }

    fn spawn_jobs(&mut self) {
        for (task, job) in self.jobs.drain(..) {
            self.tasks.push((task, spawn_local(job)));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.drain.forget();
        self.close_stdin();
        for (_, task) in &self.tasks {
            task.abort();
        }
    }
}
