//! `wherry rm`: removes containers, with force those that run too.

use std::time::Duration;

use clap::Args;
use core_api::containers::{DeleteContainerRequest, GetContainerRequest};
use core_api::task_types::Status;
use core_api::tasks::DeleteTaskRequest;
use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::tell;
use crate::connection::Connection;
use crate::error::{Context, Error, Result};
use crate::image::snapshot;
use crate::process::Process;
use crate::signals;

/// How long a killed container may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Remove containers
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    /// Containers
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Rm {
    /// Removes them.
    ///
    /// # Errors
    /// Some were refused; told already.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let mut all = Ok(());
        for id in self.ids {
            let first = Process {
                connection: connection.clone(),
                container: id,
                exec: String::new(),
            };
            tell(&mut all, remove(&first, self.force).await);
        }
        all
    }
}

/// Removes what there is of a container: its task, its record and its snapshot.
///
/// # Errors
/// It runs and there is no `force`, it does not end, or it is not there at all.
pub(super) async fn remove(first: &Process, force: bool) -> Result<()> {
    let had_task = remove_task(first, force).await?;
    let connection = &first.connection;
    let record = connection.persist(|| async {
        let id = first.container.clone();
        connection
            .containers()
            .get(GetContainerRequest { id })
            .await
    });
    let record = match record.await.about(&first.container) {
        // Somebody else's task need not have a record.
        Err(error) if error.is_not_found() && had_task => return Ok(()),
        Err(error) if error.is_not_found() => {
            let id = &first.container;
            return Err(Error::said(format!("{id}: no such container")));
        }
        record => record?.into_inner().container.unwrap_or_default(),
    };
    let deleted = connection.persist(|| async {
        let id = first.container.clone();
        let request = DeleteContainerRequest { id };
        connection.containers().delete(request).await
    });
    match deleted.await.map(drop).about(&first.container) {
        // A call repeated finds none.
        Err(error) if error.is_not_found() => {}
        deleted => deleted?,
    }
    if record.snapshot_key.is_empty() || record.snapshotter.is_empty() {
        return Ok(());
    }
    snapshot::remove(connection, &record.snapshotter, &record.snapshot_key).await
}

/// Removes the task, if there is one; answers whether.
async fn remove_task(first: &Process, force: bool) -> Result<bool> {
    let id = &first.container;
    let state = match first.state().await {
        Err(error) if error.is_not_found() => return Ok(false),
        state => state?,
    };
    if !matches!(state.status(), Status::Stopped | Status::Created) {
        if !force {
            return Err(Error::said(format!(
                "{id} is running: end it first (wherry kill {id}), or remove it with rm -f"
            )));
        }
        // Refused when it has ended in this moment; the wait knows.
        let refused = first
            .kill(signals::number(Signal::SIGKILL), true)
            .await
            .err();
        if timeout(END_LIMIT, first.wait()).await.is_err() {
            let why = refused
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            let seconds = END_LIMIT.as_secs();
            return Err(Error::said(format!(
                "{id} does not end within {seconds} s{why}"
            )));
        }
    } else if state.status() == Status::Created && force {
        // A container that was never started goes by its delete; older shims want it dead first.
        let _ = first.kill(signals::number(Signal::SIGKILL), true).await;
    }
    let connection = &first.connection;
    let deleted = connection.persist(|| async {
        let container_id = id.clone();
        connection
            .tasks()
            .delete(DeleteTaskRequest { container_id })
            .await
    });
    match deleted.await.map(drop).about(format!("cannot remove {id}")) {
        Err(error) if error.is_not_found() => Ok(true),
        done => done.map(|()| true),
    }
}
