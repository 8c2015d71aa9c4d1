//! One task: its bundle, the connection to its shim, and how it ended.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use containerd_shim_protos::ttrpc;
use core_api::Timestamp;
use protobuf::Message;
use task_api::task::{StateRequest, StateResponse, WaitRequest, WaitResponse};
use tokio::sync::{Notify, watch};
use tonic::Status;

use super::client::TaskClient;
use super::log_pipe::LogPipe;
use crate::bundle::Bundle;
use crate::{convert, status};

/// How long a shim may take to say how its processes are.
pub const STATE_LIMIT: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exit {
    /// Its pid; 0 where that is not known any more.
    pub pid: u32,
    /// Its exit code, or 128 and the signal.
    pub status: u32,
    /// When.
    pub at: Option<Timestamp>,
}

/// A task with a shim.
#[derive(Debug)]
pub struct Task {
    /// Where it is; also its namespace and id.
    pub bundle: Bundle,
    /// The shim's binary, which also cleans up.
    pub binary: PathBuf,
    client: TaskClient,
    /// Set when the shim is gone and everything of the task has been cleaned up.
    ended: watch::Sender<Option<Exit>>,
    exit: Mutex<Option<Exit>>,
    deleted: AtomicBool,
    closed: Notify,
    _log: LogPipe,
}

impl Task {
    /// A task whose shim has been connected to.
    pub fn new(bundle: Bundle, binary: PathBuf, client: TaskClient, log: LogPipe) -> Self {
        Self {
            bundle,
            binary,
            client,
            ended: watch::Sender::new(None),
            exit: Mutex::new(None),
            deleted: AtomicBool::new(false),
            closed: Notify::new(),
            _log: log,
        }
    }

    /// The task's id.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// Calls the shim.
    ///
    /// # Errors
    /// The shim's refusal; `NotFound` when it is gone.
    pub async fn call<A: Message, R: Message>(
        &self,
        method: &str,
        request: &A,
        limit: Option<Duration>,
    ) -> Result<R, Status> {
        self.try_call(method, request, limit)
            .await
            .map_err(|error| status::from_shim(error, self.id()))
    }

    /// As [`Task::call`], with the error as it came.
    ///
    /// # Errors
    /// What the shim answered, or why there is no answer.
    pub async fn try_call<A: Message, R: Message>(
        &self,
        method: &str,
        request: &A,
        limit: Option<Duration>,
    ) -> ttrpc::Result<R> {
        self.client.call(method, request, limit).await
    }

    /// How a process is: the first one when `exec` is empty.
    ///
    /// # Errors
    /// The shim's refusal; `DeadlineExceeded` when it does not answer within 2 s.
    pub async fn state(&self, exec: &str) -> Result<StateResponse, Status> {
        let request = StateRequest {
            id: self.id().to_owned(),
            exec_id: exec.to_owned(),
            ..StateRequest::default()
        };
        self.call("State", &request, Some(STATE_LIMIT)).await
    }

    /// Waits until a process has ended, as long as that takes. When the shim dies before, the
    /// answer is how the task was cleaned up.
    ///
    /// # Errors
    /// The shim's refusal.
    pub async fn wait(&self, exec: &str) -> Result<Exit, Status> {
        let request = WaitRequest {
            id: self.id().to_owned(),
            exec_id: exec.to_owned(),
            ..WaitRequest::default()
        };
        match self
            .try_call::<_, WaitResponse>("Wait", &request, None)
            .await
        {
            Ok(answer) => Ok(Exit {
                pid: 0,
                status: answer.exit_status,
                at: convert::timestamp(answer.exited_at),
            }),
            Err(error) if status::is_closed(&error) => self.end().await,
            Err(error) => Err(status::from_shim(error, self.id())),
        }
    }

    /// How a task ended whose shim is gone; waits until it has been cleaned up.
    ///
    /// # Errors
    /// `NotFound` when it is not told within 10 s.
    pub async fn end(&self) -> Result<Exit, Status> {
        let mut ended = self.ended.subscribe();
        let told = ended.wait_for(Option::is_some);
        let told = tokio::time::timeout(Duration::from_secs(10), told).await;
        match told {
            Ok(Ok(exit)) => Ok(exit.clone().unwrap_or_default()),
            _ => Err(status::not_found(format_args!("task {}", self.id()))),
        }
    }

    /// Notes the exit of the first process as it was published.
    pub fn note_exit(&self, exit: Exit) {
        self.bundle.note_exit();
        *self.exit.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
    }

    /// The exit of the first process, if it has been published while this daemon ran.
    pub fn noted_exit(&self) -> Option<Exit> {
        self.exit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on the end of the shim is what is wanted.
    pub fn set_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.closed.notify_waiters();
        self.closed.notify_one();
    }

    /// Whether the task was deleted by its own shim.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Waits until [`Task::set_deleted`].
    pub async fn until_deleted(&self) {
        self.closed.notified().await;
    }

    /// Tells whoever waits that everything has been cleaned up.
    pub fn set_ended(&self, exit: Exit) {
        self.ended.send_replace(Some(exit));
    }
}
