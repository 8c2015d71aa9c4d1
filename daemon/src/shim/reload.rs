//! Finding the tasks of an earlier daemon: every bundle in the state folder has a shim, or had
//! one. All are asked at once and none is waited for longer than 2 s; the daemon serves meanwhile,
//! and only who asks for one of these tasks waits for it.
//!
//! A task whose first process ended while no daemon ran stays, STOPPED with its code, until it is
//! deleted. A shim that is dead is cleaned up, with its exit and delete published. A shim that
//! listens and does not answer is kept: its container may well be running.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use task_api::bundle as files;
use task_api::task::{ConnectRequest, ConnectResponse, Empty};
use tokio::sync::watch;
use tonic::Code;

use super::client::{TaskClient, is_unimplemented};
use super::log_pipe::LogPipe;
use super::manager::Manager;
use super::process::{Endpoint, legacy};
use super::remove::shutdown_request;
use super::task::Task;
use crate::bundle::{Bundle, folder};
use crate::status;

/// The pause before a shim that could not be asked is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What became of the shim of a bundle.
enum Found {
    Alive(Arc<Task>),
    /// Nobody listens where it should, or it is not known where that is.
    Dead(io::Error),
    /// It could not be asked: a queue of connections that is full, no descriptors left. What is
    /// not known to be dead is not cleaned up.
    Unknown(io::Error),
}

impl Manager {
    /// Lists the bundles (at once) and connects to their shims (in the background).
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn reload(self: &Arc<Self>) -> io::Result<()> {
        for bundle in bundles(self.state.clone())? {
            let (done, loading) = watch::channel(());
            self.set_loading(&bundle, loading);
            let manager = self.clone();
            tokio::spawn(async move {
                manager.reload_one(bundle).await;
                drop(done);
            });
        }
        Ok(())
    }

    async fn reload_one(self: &Arc<Self>, bundle: Bundle) {
        let binary = PathBuf::from(
            bundle
                .read(files::SHIM_BINARY_PATH)
                .unwrap_or_default()
                .trim(),
        );
        loop {
            match find(&bundle, binary.clone(), self.surroundings.limits.load).await {
                Found::Alive(task) => {
                    log::info!("task {}/{}: shim found", bundle.namespace, bundle.id);
                    self.adopt(&task);
                    let manager = self.clone();
                    tokio::spawn(async move { manager.replay(&task).await });
                    return;
                }
                Found::Dead(error) => {
                    log::warn!(
                        "task {}/{}: shim gone: {error}",
                        bundle.namespace,
                        bundle.id
                    );
                    self.bury(&bundle, &binary).await;
                    return;
                }
                Found::Unknown(error) => {
                    log::warn!(
                        "task {}/{}: shim not reached, to be tried again: {error}",
                        bundle.namespace,
                        bundle.id
                    );
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}

/// All bundles of the state folder. Hidden ones are half removed, and are removed wholly.
fn bundles(state: PathBuf) -> io::Result<Vec<Bundle>> {
    let mut found = Vec::new();
    let namespaces = match std::fs::read_dir(folder(&state)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for namespace in namespaces {
        let namespace = namespace?;
        let ns = namespace.file_name().to_string_lossy().into_owned();
        if ns.starts_with('.') || !namespace.file_type()?.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(namespace.path())? {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type()?.is_dir() {
                continue;
            }
            let bundle = Bundle::existing(&state, &ns, &id);
            let empty = std::fs::read_dir(entry.path())?.next().is_none();
            if id.starts_with('.') || empty {
                if let Err(error) = bundle.remove() {
                    log::warn!("leftover of {ns}/{id}: {error}");
                }
                continue;
            }
            found.push(bundle);
        }
    }
    Ok(found)
}

async fn find(bundle: &Bundle, binary: PathBuf, limit: Duration) -> Found {
    let connect = async {
        let log = LogPipe::open(bundle)?;
        let endpoint = endpoint(bundle)?;
        let client = TaskClient::connect(&endpoint).await?;
        Ok((log, client))
    };
    let (log, client) = match connect.await {
        Ok(connected) => connected,
        Err(error) if nobody_is_there(&error) => return Found::Dead(error),
        Err(error) => return Found::Unknown(error),
    };
    let request = ConnectRequest {
        id: bundle.id.clone(),
        ..ConnectRequest::default()
    };
    let task = Task::new(bundle.clone(), binary, client, log);
    let answer = task
        .try_call::<_, ConnectResponse>("Connect", &request, Some(limit))
        .await;
    let task = match answer {
        Err(error) if is_unimplemented(&error) => task.downgraded(),
        Err(error) if status::is_closed(&error) => {
            return Found::Dead(io::Error::other(error.to_string()));
        }
        Err(error) => {
            // It listens and does not answer, or says no: its container may well be running.
            let refusal = status::from_shim(error, &bundle.id);
            log::warn!(
                "task {}/{}: {}",
                bundle.namespace,
                bundle.id,
                refusal.message()
            );
            if refusal.code() == Code::DeadlineExceeded {
                return Found::Alive(Arc::new(task));
            }
            task
        }
        Ok(_) => task,
    };
    match task.state("").await {
        Err(refusal) if refusal.code() == Code::NotFound => {
            // Started, and not given a container: an earlier daemon died in between.
            let request = shutdown_request(&bundle.id);
            let shutdown = task.call::<_, Empty>("Shutdown", &request, Some(limit));
            let _ = shutdown.await;
            if !task.closes_within(limit).await && task.state("").await.is_ok() {
                // It was about to create one, and has gone on with that: nothing is half done.
                return Found::Alive(Arc::new(task));
            }
            Found::Dead(io::Error::other(refusal.message().to_owned()))
        }
        _ => Found::Alive(Arc::new(task)),
    }
}

/// Whether connecting has failed for want of a shim.
fn nobody_is_there(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, InvalidData, InvalidInput, NotADirectory, NotFound};
    let kinds = [
        ConnectionRefused,
        InvalidData,
        InvalidInput,
        NotADirectory,
        NotFound,
    ];
    kinds.contains(&error.kind())
}

/// Where the shim of a bundle listens: `bootstrap.json`, or `address` where an older daemon
/// started it, or where the other is damaged.
fn endpoint(bundle: &Bundle) -> io::Result<Endpoint> {
    let json = bundle.read(files::BOOTSTRAP);
    if let Some(Ok(endpoint)) = json.map(|json| serde_json::from_str(&json)) {
        return Ok(endpoint);
    }
    let address = bundle
        .read(files::ADDRESS)
        .filter(|address| !address.trim().is_empty());
    address.map(|address| legacy(&address)).ok_or_else(|| {
        let text = format!(
            "{}: neither bootstrap.json nor address says where its shim is",
            bundle.path.display()
        );
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}
