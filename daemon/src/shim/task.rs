//! One task: its bundle, the connection to its shim, and how it ended.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use containerd_shim_protos::cgroups::metrics::Metrics as MetricsV1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as MetricsV2;
use containerd_shim_protos::ttrpc;
use core_api::Timestamp;
use protobuf::Message;
use task_api::options::type_name;
use task_api::task::{
    DeleteRequest, DeleteResponse, METRICS_V1, METRICS_V2, StartRequest, StartResponse,
    StateRequest, StateResponse, StatsRequest, StatsResponse, WaitRequest, WaitResponse,
};
use tokio::sync::{Notify, oneshot};
use tonic::Status;

use super::client::TaskClient;
use super::ledger::Ledger;
use super::log_pipe::LogPipe;
use crate::bundle::Bundle;
use crate::{convert, status};

/// How long a shim may take to say how its processes are.
pub const STATE_LIMIT: Duration = Duration::from_secs(2);
/// The same for one that did not answer the last time, when many are asked.
const SILENT_LIMIT: Duration = Duration::from_millis(200);
/// How long the cleanup after a shim that died may take before those who wait are told nothing.
const END_LIMIT: Duration = Duration::from_secs(10);

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
    ended: Mutex<Option<Exit>>,
    told: Notify,
    deleted: AtomicBool,
    /// It did not answer when it was last asked.
    silent: AtomicBool,
    _log: LogPipe,
}

impl Task {
    /// A task whose shim has been connected to.
    pub fn new(bundle: Bundle, binary: PathBuf, client: TaskClient, log: LogPipe) -> Self {
        Self {
            bundle,
            binary,
            client,
            ended: Mutex::default(),
            told: Notify::new(),
            deleted: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            _log: log,
        }
    }

    /// The same task, whose shim has the other version of the service.
    pub fn downgraded(self) -> Self {
        Self {
            client: self.client.downgraded(),
            ..self
        }
    }

    /// The task's id.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// What has been told of its processes.
    pub fn ledger(&self) -> Ledger<'_> {
        Ledger(&self.bundle)
    }

    /// Runs `then` once when the shim has gone.
    pub fn on_close(&self, then: impl FnOnce() + Send + 'static) {
        self.client.on_close(then);
    }

    /// Whether the shim goes within `limit`. What was to run then does not any more.
    pub async fn closes_within(&self, limit: Duration) -> bool {
        let (gone, told) = oneshot::channel();
        self.on_close(move || {
            let _ = gone.send(());
        });
        tokio::time::timeout(limit, told)
            .await
            .is_ok_and(|told| told.is_ok())
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
        let answer = self.client.call(method, request, limit).await;
        let late = matches!(&answer, Err(ttrpc::Error::RpcStatus(status))
            if status.code() == ttrpc::Code::DEADLINE_EXCEEDED);
        self.silent.store(late, Ordering::Relaxed);
        answer
    }

    /// How a process is: the first one when `exec` is empty.
    ///
    /// # Errors
    /// The shim's refusal; `DeadlineExceeded` when it does not answer within 2 s.
    pub async fn state(&self, exec: &str) -> Result<StateResponse, Status> {
        self.state_within(exec, STATE_LIMIT).await
    }

    /// How the first process is, for a list of many: a shim that has not answered before is not
    /// waited for as long again.
    ///
    /// # Errors
    /// As [`Task::state`].
    pub async fn state_for_list(&self) -> Result<StateResponse, Status> {
        let limit = if self.silent.load(Ordering::Relaxed) {
            SILENT_LIMIT
        } else {
            STATE_LIMIT
        };
        self.state_within("", limit).await
    }

    async fn state_within(&self, exec: &str, limit: Duration) -> Result<StateResponse, Status> {
        let request = StateRequest {
            id: self.id().to_owned(),
            exec_id: exec.to_owned(),
            ..StateRequest::default()
        };
        self.call("State", &request, Some(limit)).await
    }

    /// Starts a process: the first one when `exec` is empty. Answers its pid.
    ///
    /// # Errors
    /// The shim's refusal.
    pub async fn start(&self, exec: &str) -> Result<u32, Status> {
        if !exec.is_empty() {
            // Before the shim can have told its exit.
            self.ledger().begin_exec(exec);
        }
        let request = StartRequest {
            id: self.id().to_owned(),
            exec_id: exec.to_owned(),
            ..StartRequest::default()
        };
        let answer: StartResponse = self.call("Start", &request, None).await?;
        Ok(answer.pid)
    }

    /// Deletes an exec that has ended.
    ///
    /// # Errors
    /// The shim's refusal.
    pub async fn delete_exec(&self, exec: &str) -> Result<Exit, Status> {
        let request = DeleteRequest {
            id: self.id().to_owned(),
            exec_id: exec.to_owned(),
            ..DeleteRequest::default()
        };
        let answer: DeleteResponse = self.call("Delete", &request, None).await?;
        self.ledger().end_exec(exec);
        Ok(Exit {
            pid: answer.pid,
            status: answer.exit_status,
            at: convert::timestamp(answer.exited_at),
        })
    }

    /// How many processes of the task the kernel has killed for want of memory; `None` where
    /// that is not known.
    ///
    /// # Errors
    /// The shim's refusal; `DeadlineExceeded` when it does not answer within 2 s.
    pub async fn oom_kills(&self) -> Result<Option<u64>, Status> {
        let request = StatsRequest {
            id: self.id().to_owned(),
            ..StatsRequest::default()
        };
        let answer: StatsResponse = self.call("Stats", &request, Some(STATE_LIMIT)).await?;
        Ok(answer
            .stats
            .into_option()
            .and_then(|stats| match type_name(&stats.type_url) {
                METRICS_V1 => MetricsV1::parse_from_bytes(&stats.value)
                    .ok()?
                    .memory_oom_control
                    .as_ref()
                    .map(|oom| oom.oom_kill),
                METRICS_V2 => MetricsV2::parse_from_bytes(&stats.value)
                    .ok()?
                    .memory_events
                    .as_ref()
                    .map(|events| events.oom_kill),
                _ => None,
            }))
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
        let told = async {
            loop {
                let next = self.told.notified();
                if let Some(exit) = self.ended() {
                    return exit;
                }
                next.await;
            }
        };
        tokio::time::timeout(END_LIMIT, told)
            .await
            .map_err(|_| status::not_found(format_args!("task {}", self.id())))
    }

    fn ended(&self) -> Option<Exit> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.clone()
    }

    /// From now on the end of the shim is what is wanted.
    pub fn set_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    /// Whether the task was deleted by its own shim.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Tells whoever waits that everything has been cleaned up.
    pub fn set_ended(&self, exit: Exit) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
        self.told.notify_waiters();
    }
}
