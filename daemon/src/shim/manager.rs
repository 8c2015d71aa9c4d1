//! All tasks: creating them, finding them, deleting them, and cleaning up when a shim dies.
//!
//! A task's id is in the table from before its bundle is laid until after it is removed, so that
//! two tasks of one id never meet on disk. What changes things runs detached from the client's
//! request: a client that goes away leaves nothing half done.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use core_api::containers::Container;
use core_api::events_service::Envelope;
use core_api::tasks;
use protobuf::Message;
use task_api::bundle as files;
use task_api::events::{TaskDelete, TaskEvent, TaskExit, topic};
use task_api::options::{Options, RUNC_OPTIONS, type_name};
use task_api::task::{
    CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ShutdownRequest,
};
use tokio::sync::watch;
use tonic::Status;

use super::client::{Hangup, TaskClient};
use super::log_pipe::LogPipe;
use super::options::{self, Legacy};
use super::process::{self, Surroundings};
use super::resolve;
use super::task::{Exit, Task};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::{convert, status};

/// How long a shim may take to shut down after its task was deleted.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

/// Namespace and id.
type Key = (String, String);

#[derive(Debug)]
enum Slot {
    /// Being created or removed.
    Busy,
    /// Being found again after a restart; the sender is dropped when that is done.
    Loading(watch::Receiver<()>),
    Live(Arc<Task>),
}

/// A row of the table of tasks, for who looks at all of them.
#[derive(Debug)]
pub struct Entry {
    /// The namespace.
    pub namespace: String,
    /// The task's id.
    pub id: String,
    /// The task; none while it is being created, found again or removed.
    pub task: Option<Arc<Task>>,
}

/// The tasks of this daemon.
#[derive(Debug)]
pub struct Manager {
    root: PathBuf,
    state: PathBuf,
    surroundings: Surroundings,
    legacy: Legacy,
    exchange: Arc<Exchange>,
    path: OsString,
    slots: Mutex<HashMap<Key, Slot>>,
}

impl Manager {
    /// A manager without tasks; `reload` finds those of an earlier daemon.
    pub fn new(config: &Config, surroundings: Surroundings, exchange: Arc<Exchange>) -> Self {
        let legacy = Legacy {
            runtime: config.legacy_runtime.clone(),
            root: config.legacy_root.clone(),
        };
        Self {
            root: config.root.clone(),
            state: config.state.clone(),
            surroundings,
            legacy,
            exchange,
            path: std::env::var_os("PATH").unwrap_or_default(),
            slots: Mutex::default(),
        }
    }

    pub(super) fn state_folder(&self) -> &Path {
        &self.state
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_loading(&self, bundle: &Bundle, loading: watch::Receiver<()>) {
        self.slots().insert(key_of(bundle), Slot::Loading(loading));
    }

    pub(super) fn set_live(&self, task: Arc<Task>) {
        self.slots().insert(key_of(&task.bundle), Slot::Live(task));
    }

    pub(super) fn forget(&self, bundle: &Bundle) {
        self.slots().remove(&key_of(bundle));
    }

    /// The task of a container; one that is being found again after a restart is waited for.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, namespace: &str, id: &str) -> Result<Arc<Task>, Status> {
        let key = (namespace.to_owned(), id.to_owned());
        loop {
            let mut loading = match self.slots().get(&key) {
                Some(Slot::Live(task)) => return Ok(task.clone()),
                Some(Slot::Loading(loading)) => loading.clone(),
                Some(Slot::Busy) | None => {
                    return Err(status::not_found(format_args!(
                        "no running task found: task {id}"
                    )));
                }
            };
            // Nothing is ever sent: this ends with the sender.
            let _ = loading.changed().await;
        }
    }

    /// All there is at this moment, without waiting for anything.
    pub fn table(&self) -> Vec<Entry> {
        let entry = |((namespace, id), slot): (&Key, &Slot)| Entry {
            namespace: namespace.clone(),
            id: id.clone(),
            task: match slot {
                Slot::Live(task) => Some(task.clone()),
                Slot::Busy | Slot::Loading(_) => None,
            },
        };
        self.slots().iter().map(entry).collect()
    }

    /// Every task of a namespace, in the order of their ids.
    pub async fn list(&self, namespace: &str) -> Vec<Arc<Task>> {
        let mut ids: Vec<String> = self
            .slots()
            .keys()
            .filter(|key| key.0 == namespace)
            .map(|key| key.1.clone())
            .collect();
        ids.sort();
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.get(namespace, &id).await.ok());
        }
        found
    }

    /// Creates the task of `container`: its bundle, its shim, its first process (not started).
    /// Answers the pid.
    ///
    /// # Errors
    /// `AlreadyExists`; what the shim answers; and then nothing is left behind.
    pub async fn create(
        self: &Arc<Self>,
        namespace: String,
        container: Container,
        request: tasks::CreateTaskRequest,
    ) -> Result<u32, Status> {
        let key = (namespace, container.id.clone());
        {
            let mut slots = self.slots();
            if slots.contains_key(&key) {
                return Err(status::already_exists(format_args!("task {}", key.1)));
            }
            slots.insert(key.clone(), Slot::Busy);
        }
        let manager = self.clone();
        detached(async move {
            let created = manager.create_here(&key.0, container, request).await;
            match created {
                Ok((task, hangup, pid)) => {
                    manager.adopt(task, hangup);
                    Ok(pid)
                }
                Err(refusal) => {
                    manager.slots().remove(&key);
                    Err(refusal)
                }
            }
        })
        .await
    }

    async fn create_here(
        &self,
        namespace: &str,
        container: Container,
        request: tasks::CreateTaskRequest,
    ) -> Result<(Arc<Task>, Hangup, u32), Status> {
        let runtime = container.runtime.unwrap_or_default();
        let wanted = match request.runtime_path.as_str() {
            "" => runtime.name.as_str(),
            path => path,
        };
        let beside = self
            .surroundings
            .publish_binary
            .parent()
            .unwrap_or_else(|| Path::new("/"));
        let binary = resolve::shim_binary(wanted, &self.path, beside)?;
        let options = options::for_shim(
            &runtime.name,
            runtime.options,
            request.options,
            &self.legacy,
        )
        .map_err(status::invalid)?;
        let options = convert::any_to_shim(options);
        let spec = container.spec.unwrap_or_default().value;
        let (root, state) = (self.root.clone(), self.state.clone());
        let (ns, id) = (namespace.to_owned(), container.id);
        let bundle = blocking(move || Bundle::create(&root, &state, &ns, &id, &spec)).await?;
        let encoded = match options.as_ref() {
            Some(options) => options.write_to_bytes().map_err(status::unknown)?,
            None => Vec::new(),
        };
        let (task, hangup) = match self.start_shim(&bundle, &binary, encoded).await {
            Ok(started) => started,
            Err(error) => {
                self.clean(&bundle, &binary).await;
                return Err(status::unknown(format_args!(
                    "failed to start shim: {error}"
                )));
            }
        };
        let create = CreateTaskRequest {
            id: bundle.id.clone(),
            bundle: bundle.path.to_string_lossy().into_owned(),
            rootfs: request.rootfs.into_iter().map(convert::mount).collect(),
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            checkpoint: checkpoint_path(options.as_ref()),
            options,
            ..CreateTaskRequest::default()
        };
        match task
            .call::<_, CreateTaskResponse>("Create", &create, None)
            .await
        {
            Ok(created) => Ok((Arc::new(task), hangup, created.pid)),
            Err(refusal) => {
                let shutdown = shutdown_request(&bundle.id);
                let _ = task
                    .call::<_, Empty>("Shutdown", &shutdown, Some(SHUTDOWN_LIMIT))
                    .await;
                self.clean(&bundle, &binary).await;
                Err(refusal)
            }
        }
    }

    async fn start_shim(
        &self,
        bundle: &Bundle,
        binary: &Path,
        options: Vec<u8>,
    ) -> io::Result<(Task, Hangup)> {
        let log = LogPipe::open(bundle)?;
        // Before the start: whoever finds this bundle after a crash in between must know what to
        // clean up with.
        let path = binary.as_os_str().as_encoded_bytes();
        bundle.write(files::SHIM_BINARY_PATH, path, 0o600)?;
        let endpoint = process::start(&self.surroundings, binary, bundle, options).await?;
        // How to find the shim again; it writes `address`, for daemons up to 1.7, itself.
        let json = serde_json::to_vec(&endpoint)?;
        bundle.write(files::BOOTSTRAP, &json, 0o644)?;
        let (client, hangup) = TaskClient::connect(&endpoint).await?;
        Ok((
            Task::new(bundle.clone(), binary.to_owned(), client, log),
            hangup,
        ))
    }

    /// Puts a task into the table and watches its shim.
    pub(super) fn adopt(self: &Arc<Self>, task: Arc<Task>, hangup: Hangup) {
        self.set_live(task.clone());
        let manager = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = hangup.wait() => {}
                () = task.until_deleted() => return,
            }
            if !task.is_deleted() {
                manager.shim_died(&task).await;
            }
        });
    }

    /// Deletes a task whose first process has ended, with its shim and bundle.
    ///
    /// # Errors
    /// The shim's refusal, such as for a task that runs.
    pub async fn delete(self: &Arc<Self>, task: Arc<Task>) -> Result<Exit, Status> {
        let manager = self.clone();
        detached(async move { manager.delete_here(task).await }).await
    }

    async fn delete_here(&self, task: Arc<Task>) -> Result<Exit, Status> {
        let request = DeleteRequest {
            id: task.id().to_owned(),
            ..DeleteRequest::default()
        };
        let answer = match task
            .try_call::<_, DeleteResponse>("Delete", &request, None)
            .await
        {
            Ok(answer) => answer,
            Err(error) if status::is_closed(&error) => return task.end().await,
            Err(error) => return Err(status::from_shim(error, task.id())),
        };
        task.set_deleted();
        self.slots().insert(key_of(&task.bundle), Slot::Busy);
        let request = shutdown_request(task.id());
        let shutdown = task
            .try_call::<_, Empty>("Shutdown", &request, Some(SHUTDOWN_LIMIT))
            .await;
        let clean = match shutdown {
            Err(error) if !status::is_closed(&error) => {
                log::warn!("shim of task {}: shutdown: {error}", task.id());
                false
            }
            _ => true,
        };
        // The runc shims have nothing left after Delete and Shutdown; of others only their own
        // `delete` knows that.
        if clean && is_runc_shim(&task.binary) {
            self.remove_bundle(&task.bundle).await;
        } else {
            self.clean(&task.bundle, &task.binary).await;
        }
        self.forget(&task.bundle);
        let exit = Exit {
            pid: answer.pid,
            status: answer.exit_status,
            at: convert::timestamp(answer.exited_at),
        };
        task.set_ended(exit.clone());
        Ok(exit)
    }

    /// Cleans up after a shim that went away with a task, and says so to the world.
    async fn shim_died(&self, task: &Task) {
        log::warn!(
            "shim of task {}/{} has died",
            task.bundle.namespace,
            task.id()
        );
        let cleaned = self.clean(&task.bundle, &task.binary).await;
        let exit = task.noted_exit();
        self.publish_end(&task.bundle, exit.clone(), cleaned.as_ref());
        self.forget(&task.bundle);
        task.set_ended(exit.or(cleaned).unwrap_or_else(unknown_exit));
    }

    /// Publishes the exit (unless it was published before) and the deletion of a task whose shim
    /// cannot do so any more.
    pub(super) fn publish_end(
        &self,
        bundle: &Bundle,
        published: Option<Exit>,
        cleaned: Option<&Exit>,
    ) {
        let exit = published
            .clone()
            .or_else(|| cleaned.cloned())
            .unwrap_or_else(unknown_exit);
        if published.is_none() {
            let event = TaskExit {
                container_id: bundle.id.clone(),
                id: bundle.id.clone(),
                pid: exit.pid,
                exit_status: exit.status,
                exited_at: convert::timestamp_to_shim(exit.at),
                ..TaskExit::default()
            };
            self.exchange
                .publish_task(&bundle.namespace, &TaskEvent::Exit(event));
        }
        let event = TaskDelete {
            container_id: bundle.id.clone(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: convert::timestamp_to_shim(exit.at),
            ..TaskDelete::default()
        };
        self.exchange
            .publish_task(&bundle.namespace, &TaskEvent::Delete(event));
    }

    /// Runs the shim's `delete` and removes the bundle. Answers how the task ended, if that is
    /// known.
    pub(super) async fn clean(&self, bundle: &Bundle, binary: &Path) -> Option<Exit> {
        if binary.as_os_str().is_empty() {
            // A daemon died before it had started a shim: only files are left.
            self.remove_bundle(bundle).await;
            return None;
        }
        let deleted = process::delete(&self.surroundings, binary, bundle).await;
        let exit = match deleted {
            Ok(answer) => Some(Exit {
                pid: answer.pid,
                status: answer.exit_status,
                at: convert::timestamp(answer.exited_at),
            }),
            Err(error) => {
                log::warn!("cleanup of {}/{}: {error}", bundle.namespace, bundle.id);
                None
            }
        };
        self.remove_bundle(bundle).await;
        exit
    }

    async fn remove_bundle(&self, bundle: &Bundle) {
        let (ns, id) = (bundle.namespace.clone(), bundle.id.clone());
        let bundle = bundle.clone();
        if let Err(refusal) = blocking(move || bundle.remove()).await {
            log::warn!("bundle of {ns}/{id}: {}", refusal.message());
        }
    }

    /// Takes note of what a shim has published.
    pub fn note(&self, envelope: &Envelope) {
        if envelope.topic != topic::EXIT {
            return;
        }
        let Some(event) = &envelope.event else { return };
        let Ok(exit) = TaskExit::parse_from_bytes(&event.value) else {
            return;
        };
        if exit.id != exit.container_id {
            return;
        }
        let key = (envelope.namespace.clone(), exit.container_id);
        let noted = Exit {
            pid: exit.pid,
            status: exit.exit_status,
            at: convert::timestamp(exit.exited_at),
        };
        match self.slots().get(&key) {
            Some(Slot::Live(task)) => task.note_exit(noted),
            Some(Slot::Loading(_)) => Bundle::existing(&self.state, &key.0, &key.1).note_exit(),
            _ => {}
        }
    }
}

fn key_of(bundle: &Bundle) -> Key {
    (bundle.namespace.clone(), bundle.id.clone())
}

fn unknown_exit() -> Exit {
    Exit {
        pid: 0,
        status: 255,
        at: Some(SystemTime::now().into()),
    }
}

pub(super) fn shutdown_request(id: &str) -> ShutdownRequest {
    ShutdownRequest {
        id: id.to_owned(),
        ..ShutdownRequest::default()
    }
}

fn is_runc_shim(binary: &Path) -> bool {
    let name = binary.file_name().unwrap_or_default();
    ["containerd-shim-runc-v1", "containerd-shim-runc-v2"]
        .iter()
        .any(|known| name == *known)
}

/// The checkpoint to restore from that runc's options name.
fn checkpoint_path(options: Option<&task_api::task::Any>) -> String {
    options
        .filter(|any| type_name(&any.type_url) == RUNC_OPTIONS)
        .and_then(|any| Options::parse_from_bytes(&any.value).ok())
        .map(|options| options.criu_image_path)
        .unwrap_or_default()
}

/// Runs `work` to its end even if the caller is dropped.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// Runs what may block where that does no harm.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(status::unknown),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
