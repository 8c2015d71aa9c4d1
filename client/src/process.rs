//! One process of a container, from its start to its exit: signals and sizes go to it, its output
//! comes, and its exit status is learned even when the daemon goes away and comes back meanwhile.

use std::time::Duration;

use core_api::task_types::{Process as State, Status};
use core_api::tasks::{
    CloseIoRequest, GetRequest, KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::connection::{Connection, is_lost};
use crate::error::{Context, Error, Result};
use crate::output;
use crate::signals::{self, Signals};
use crate::stdio::{Note, Relays};
use crate::terminal;

/// How long a daemon that came back may take to find its tasks again.
const FINDING_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a process that cannot be waited for.
const RETRY: Duration = Duration::from_millis(100);
/// What a process whose reader went away is given to end by itself.
const PIPE_LIMIT: Duration = Duration::from_secs(1);
/// As with Docker: who asks this often for an end means it.
const PATIENCE: u32 = 3;

/// The first process of a container, or an exec.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// The daemon that runs it.
    pub(crate) connection: Connection,
    /// Its container.
    pub(crate) container: String,
    /// Its id within; empty for the first.
    pub(crate) exec: String,
}

impl Process {
    /// What it is called in messages.
    pub(crate) fn name(&self) -> &str {
        if self.exec.is_empty() {
            &self.container
        } else {
            &self.exec
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// The daemon's refusal, with the runtime's words.
    pub(crate) async fn start(&self) -> Result<()> {
        let request = StartRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
        };
        let started = self.connection.tasks().start(request).await;
        started.map(drop).about("cannot start the process")
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The daemon's refusal; `NotFound` when it has ended.
    pub(crate) async fn kill(&self, signal: u32, all: bool) -> Result<()> {
        let request = KillRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            signal,
            all,
        };
        let sent = self.connection.tasks().kill(request).await;
        sent.map(drop).about(self.name())
    }

    /// What the daemon knows of it.
    ///
    /// # Errors
    /// The daemon's refusal; `NotFound` when it is not there.
    pub(crate) async fn state(&self) -> Result<State> {
        let answer = self.connection.persist(|| async {
            let request = GetRequest {
                container_id: self.container.clone(),
                exec_id: self.exec.clone(),
            };
            self.connection.tasks().get(request).await
        });
        let process = answer.await.about(self.name())?.into_inner().process;
        process.ok_or_else(|| Error::said(format!("{}: the daemon tells no state", self.name())))
    }

    /// Waits for its end and answers its exit status.
    ///
    /// # Errors
    /// It is gone, or the daemon cannot say.
    pub(crate) async fn wait(&self) -> Result<u32> {
        loop {
            let request = WaitRequest {
                container_id: self.container.clone(),
                exec_id: self.exec.clone(),
            };
            let status = match self.connection.tasks().wait(request).await {
                Ok(answer) => return Ok(answer.into_inner().exit_status),
                Err(status) => status,
            };
            // Whatever broke the wait, the state says whether it has ended.
            let was_lost = is_lost(&status);
            if was_lost {
                self.connection.restored().await;
            }
            let state = self.state_within(was_lost).await?;
            if state.status() == Status::Stopped {
                return Ok(state.exit_status);
            }
            sleep(RETRY).await;
        }
    }

    /// Its state; a daemon that has just come back is given time to find it.
    async fn state_within(&self, daemon_is_new: bool) -> Result<State> {
        let deadline = Instant::now() + FINDING_LIMIT;
        loop {
            match self.state().await {
                Err(error) if error.is_not_found() => {
                    if !daemon_is_new || Instant::now() >= deadline {
                        let text = format!("{} was deleted before its end was seen", self.name());
                        return Err(Error::said(text));
                    }
                    sleep(RETRY).await;
                }
                known => return known,
            }
        }
    }

    /// Passes everything to and fro until it has ended and its output is out; answers its exit
    /// status.
    ///
    /// # Errors
    /// As [`Process::wait`]; or an end is asked for, and the daemon is away or deaf to it.
    pub(crate) async fn accompany(
        &self,
        relays: &mut Relays,
        signals: &mut Signals,
        has_terminal: bool,
    ) -> Result<u32> {
        if has_terminal {
            self.resize().await;
        }
        let end = self.wait();
        tokio::pin!(end);
        let mut asked = 0;
        let status = loop {
            tokio::select! {
                status = &mut end => break status?,
                signal = signals.next() => match signal? {
                    Signal::SIGWINCH if has_terminal => self.resize().await,
                    Signal::SIGWINCH => {}
                    signal => {
                        asked += u32::from(signals::is_an_end(signal));
                        if asked > 0 && (asked > PATIENCE || !self.connection.is_there().await) {
                            return Err(Error::said(format!(
                                "{} is left to itself: the daemon at {} cannot be told to end it",
                                self.name(),
                                self.connection.socket()
                            )));
                        }
                        self.forward(if asked < PATIENCE { signal } else { Signal::SIGKILL });
                    }
                },
                note = relays.next() => match note {
                    Note::ReaderGone => self.break_pipe(),
                    Note::InputDone => self.close_stdin(),
                    Note::OutputDone => {}
                },
            }
        };
        // A reader may take its time over the rest; who is asked to end meanwhile does.
        let drained = relays.drain();
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut drained => return Ok(status),
                signal = signals.next() => if signals::is_an_end(signal?) {
                    return Ok(status);
                },
            }
        }
    }

    /// Sends a signal beside everything else: a slow daemon must not hold up the output.
    fn forward(&self, signal: Signal) {
        let process = self.clone();
        tokio::spawn(async move {
            match process.kill(signals::number(signal), false).await {
                Err(Error::Refused { status, .. })
                    if is_lost(&status) || status.code() == tonic::Code::NotFound => {}
                Err(error) => output::complain(&error),
                Ok(()) => {}
            }
        });
    }

    /// What the kernel would do to a process that writes to nobody, and what it cannot ignore after.
    fn break_pipe(&self) {
        let process = self.clone();
        tokio::spawn(async move {
            process.forward(Signal::SIGPIPE);
            sleep(PIPE_LIMIT).await;
            process.forward(Signal::SIGKILL);
        });
    }

    fn close_stdin(&self) {
        let process = self.clone();
        tokio::spawn(async move {
            let request = CloseIoRequest {
                container_id: process.container.clone(),
                exec_id: process.exec.clone(),
                stdin: true,
            };
            // Refused when it has ended, and then there is nothing to close.
            let _ = process.connection.tasks().close_io(request).await;
        });
    }

    async fn resize(&self) {
        let Some((width, height)) = terminal::size() else {
            return;
        };
        let request = ResizePtyRequest {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
            width,
            height,
        };
        // Refused when it has ended; and a size is no reason to end what runs.
        let _ = timeout(PIPE_LIMIT, self.connection.tasks().resize_pty(request)).await;
    }
}
