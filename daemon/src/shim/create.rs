//! How a task comes about: its bundle, its shim, its first process. When one of them fails, what
//! there was of the others is taken away again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use core_api::containers::Container;
use core_api::tasks;
use protobuf::Message;
use task_api::bundle as files;
use task_api::options::{Options, RUNC_OPTIONS, type_name};
use task_api::task::{CreateTaskRequest, CreateTaskResponse, Empty};
use tokio::sync::oneshot;
use tonic::Status;

use super::client::TaskClient;
use super::ledger::Ledger;
use super::log_pipe::LogPipe;
use super::manager::{Manager, blocking, detached};
use super::remove::shutdown_request;
use super::task::Task;
use super::{options, process, resolve};
use crate::bundle::Bundle;
use crate::{convert, status};

/// How long a Create goes on for which no client waits any more: one that hangs would keep its id
/// for ever.
const GONE_LIMIT: Duration = Duration::from_secs(10);

impl Manager {
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
        self.reserve(&key)?;
        let manager = self.clone();
        // Dropped with this future: when the client goes away, or has its answer.
        let (_client, gone) = oneshot::channel();
        detached(async move {
            let created = manager.create_here(&key.0, container, request, gone).await;
            match created {
                Ok((task, pid)) => {
                    manager.adopt(&task);
                    Ok(pid)
                }
                Err(refusal) => {
                    manager.release(&key);
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
        gone: oneshot::Receiver<()>,
    ) -> Result<(Arc<Task>, u32), Status> {
        let runtime = container.runtime.unwrap_or_default();
        let beside = self
            .surroundings
            .publish_binary
            .parent()
            .unwrap_or_else(|| Path::new("/"));
        let binary = resolve::of_task(&runtime.name, &request.runtime_path, &self.path, beside)?;
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
        let task = match self.start_shim(&bundle, &binary, encoded).await {
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
        let created = tokio::select! {
            created = task.call::<_, CreateTaskResponse>("Create", &create, None) => created,
            () = given_up(gone) => {
                let text = format!("task {}: its shim does not answer, and nobody waits", bundle.id);
                log::warn!("{text}");
                Err(Status::deadline_exceeded(text))
            }
        };
        match created {
            Ok(created) => Ok((Arc::new(task), created.pid)),
            Err(refusal) => {
                let shutdown = shutdown_request(&bundle.id);
                let _ = task
                    .call::<_, Empty>(
                        "Shutdown",
                        &shutdown,
                        Some(self.surroundings.limits.shutdown),
                    )
                    .await;
                self.clean(&bundle, &binary).await;
                // As containerd says it; people and scripts look for these words.
                let text = format!("failed to create shim task: {}", refusal.message());
                Err(Status::new(refusal.code(), text))
            }
        }
    }

    async fn start_shim(
        &self,
        bundle: &Bundle,
        binary: &Path,
        options: Vec<u8>,
    ) -> io::Result<Task> {
        let log = LogPipe::open(bundle)?;
        Ledger(bundle).begin();
        // Before the start: whoever finds this bundle after a crash in between must know what to
        // clean up with.
        let path = binary.as_os_str().as_encoded_bytes();
        bundle.write(files::SHIM_BINARY_PATH, path, 0o600)?;
        let endpoint = process::start(&self.surroundings, binary, bundle, options).await?;
        // How to find the shim again; it writes `address`, for daemons up to 1.7, itself.
        let json = serde_json::to_vec(&endpoint)?;
        bundle.write(files::BOOTSTRAP, &json, 0o644)?;
        let client = TaskClient::connect(&endpoint).await?;
        Ok(Task::new(bundle.clone(), binary.to_owned(), client, log))
    }
}

/// Ends when the client has been gone for so long that its Create is to be taken back.
async fn given_up(gone: oneshot::Receiver<()>) {
    let _ = gone.await;
    tokio::time::sleep(GONE_LIMIT).await;
}

/// The checkpoint to restore from that runc's options name.
fn checkpoint_path(options: Option<&task_api::task::Any>) -> String {
    options
        .filter(|any| type_name(&any.type_url) == RUNC_OPTIONS)
        .and_then(|any| Options::parse_from_bytes(&any.value).ok())
        .map(|options| options.criu_image_path)
        .unwrap_or_default()
}
