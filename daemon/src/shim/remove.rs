//! How a task goes: deleted by a client, or cleaned up after a shim that died.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use task_api::task::{DeleteRequest, DeleteResponse, Empty, ShutdownRequest};
use tonic::Status;

use super::manager::{Manager, blocking, detached};
use super::process;
use super::task::{Exit, Task};
use crate::bundle::Bundle;
use crate::{convert, status};

impl Manager {
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
        self.set_busy(&task.bundle);
        let request = shutdown_request(task.id());
        let shutdown = task
            .try_call::<_, Empty>(
                "Shutdown",
                &request,
                Some(self.surroundings.limits.shutdown),
            )
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

    /// Cleans up after a shim that went away with a task.
    pub(super) async fn shim_died(&self, task: &Task) {
        log::warn!(
            "shim of task {}/{} has died",
            task.bundle.namespace,
            task.id()
        );
        let exit = self.bury(&task.bundle, &task.binary).await;
        task.set_ended(exit);
    }

    /// Cleans up after a shim that is gone, tells the world how everything of its task ended, and
    /// frees the id. Cut short by the end of the daemon, it is done again by the next one.
    pub(super) async fn bury(&self, bundle: &Bundle, binary: &Path) -> Exit {
        let cleaned = self.run_delete(bundle, binary).await;
        let exit = self.tell_end(bundle, cleaned.unwrap_or_else(unknown_exit));
        self.remove_bundle(bundle).await;
        self.forget(bundle);
        exit
    }

    /// Cleans up after a task that never was: nothing is told of it.
    pub(super) async fn clean(&self, bundle: &Bundle, binary: &Path) {
        self.run_delete(bundle, binary).await;
        self.remove_bundle(bundle).await;
    }

    /// Runs the shim's `delete`. Answers how the task ended, if that is known.
    async fn run_delete(&self, bundle: &Bundle, binary: &Path) -> Option<Exit> {
        if binary.as_os_str().is_empty() {
            // A daemon died before it had started a shim: only files are left.
            return None;
        }
        match process::delete(&self.surroundings, binary, bundle).await {
            Ok(answer) => Some(Exit {
                pid: answer.pid,
                status: answer.exit_status,
                at: convert::timestamp(answer.exited_at),
            }),
            Err(error) => {
                log::warn!("cleanup of {}/{}: {error}", bundle.namespace, bundle.id);
                None
            }
        }
    }

    async fn remove_bundle(&self, bundle: &Bundle) {
        let (ns, id) = (bundle.namespace.clone(), bundle.id.clone());
        let bundle = bundle.clone();
        if let Err(refusal) = blocking(move || bundle.remove()).await {
            log::warn!("bundle of {ns}/{id}: {}", refusal.message());
        }
    }
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
