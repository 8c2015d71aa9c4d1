//! All tasks of the daemon: the table of them, and finding them in it.
//!
//! A task's id is in the table from before its bundle is laid until after it is removed, so that
//! two tasks of one id never meet on disk. What changes things runs detached from the client's
//! request: a client that goes away leaves nothing half done. How tasks come about is in
//! [`super::create`] and [`super::reload`], how they go in [`super::remove`], and what is told of
//! them in [`super::tell`].

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::options::Legacy;
use super::process::Surroundings;
use super::task::Task;
use crate::bundle::Bundle;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::status;

/// How long a request may wait for a task that is being found again after a restart.
const FIND_LIMIT: Duration = Duration::from_secs(2);

/// A table with room for more tasks than this has grown.
const MANY: usize = 64;

/// Namespace and id.
pub(super) type Key = (String, String);

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
    pub(super) root: PathBuf,
    pub(super) state: PathBuf,
    pub(super) surroundings: Surroundings,
    pub(super) legacy: Legacy,
    pub(super) exchange: Arc<Exchange>,
    pub(super) path: OsString,
    slots: Mutex<HashMap<Key, Slot>>,
    /// Held while an exit is told and noted: the shim and the daemon never do so at once.
    pub(super) telling: Mutex<()>,
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
            telling: Mutex::default(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an id that nobody has.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(super) fn reserve(&self, key: &Key) -> Result<(), Status> {
        let mut slots = self.slots();
        if slots.contains_key(key) {
            return Err(status::already_exists(format_args!("task {}", key.1)));
        }
        slots.insert(key.clone(), Slot::Busy);
        Ok(())
    }

    /// The task of this id is being removed: nobody finds it any more, and its id stays taken.
    pub(super) fn set_busy(&self, bundle: &Bundle) {
        self.slots().insert(key_of(bundle), Slot::Busy);
    }

    pub(super) fn set_loading(&self, bundle: &Bundle, loading: watch::Receiver<()>) {
        self.slots().insert(key_of(bundle), Slot::Loading(loading));
    }

    pub(super) fn forget(&self, bundle: &Bundle) {
        let mut slots = self.slots();
        slots.remove(&key_of(bundle));
        if slots.is_empty() && slots.capacity() > MANY {
            // There were many: what they had goes back to the system.
            *slots = HashMap::new();
            drop(slots);
            sys::process::trim_heap();
        }
    }

    /// Frees an id that no bundle was laid for.
    pub(super) fn release(&self, key: &Key) {
        self.slots().remove(key);
    }

    /// Puts a task into the table and watches its shim.
    pub(super) fn adopt(self: &Arc<Self>, task: &Arc<Task>) {
        self.slots()
            .insert(key_of(&task.bundle), Slot::Live(task.clone()));
        // Not by a task of tokio's: a thousand shims at rest would be a thousand of them. The
        // connection belongs to the task, so it must not keep the task.
        let (manager, watched) = (self.clone(), Arc::downgrade(task));
        let runtime = tokio::runtime::Handle::current();
        task.on_close(move || {
            let Some(task) = watched.upgrade() else {
                return;
            };
            if !task.is_deleted() {
                runtime.spawn(async move { manager.shim_died(&task).await });
            }
        });
    }

    /// The bundle of a task that there is, or that is being found.
    pub(super) fn bundle_of(&self, key: &Key) -> Option<Bundle> {
        match self.slots().get(key) {
            Some(Slot::Live(task)) => Some(task.bundle.clone()),
            Some(Slot::Loading(_)) => Some(Bundle::existing(&self.state, &key.0, &key.1)),
            Some(Slot::Busy) | None => None,
        }
    }

    /// The task of this id, if it is not just being found or removed.
    pub(super) fn live(&self, key: &Key) -> Option<Arc<Task>> {
        match self.slots().get(key) {
            Some(Slot::Live(task)) => Some(task.clone()),
            _ => None,
        }
    }

    /// The task of a container; one that is being found again after a restart is waited for, 2 s
    /// at the longest.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when its shim has not been reached yet.
    pub async fn get(&self, namespace: &str, id: &str) -> Result<Arc<Task>, Status> {
        self.get_until(namespace, id, Instant::now() + FIND_LIMIT)
            .await
    }

    async fn get_until(
        &self,
        namespace: &str,
        id: &str,
        deadline: Instant,
    ) -> Result<Arc<Task>, Status> {
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
            if timeout_at(deadline, loading.changed()).await.is_err() {
                return Err(Status::unavailable(format!(
                    "task {id}: its shim has not answered yet: unavailable"
                )));
            }
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

    /// Every task of a namespace whose id is `wanted`, in the order of their ids. Those that are
    /// still being found are waited for, 2 s for all of them, and then left out.
    pub async fn list(&self, namespace: &str, wanted: impl Fn(&str) -> bool) -> Vec<Arc<Task>> {
        let mut ids: Vec<String> = self
            .slots()
            .keys()
            .filter(|key| key.0 == namespace && wanted(&key.1))
            .map(|key| key.1.clone())
            .collect();
        ids.sort();
        let deadline = Instant::now() + FIND_LIMIT;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.get_until(namespace, &id, deadline).await.ok());
        }
        found
    }
}

pub(super) fn key_of(bundle: &Bundle) -> Key {
    (bundle.namespace.clone(), bundle.id.clone())
}

/// Runs `work` to its end even if the caller is dropped.
pub(super) async fn detached<T: Send + 'static>(
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
        Ok(done) => done.map_err(status::from_io),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
