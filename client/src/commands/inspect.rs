//! `wherry inspect`: everything the daemon knows of containers, as JSON.

use clap::Args;
use core_api::containers::GetContainerRequest;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::error::{Context, Error, Result};
use crate::process::Process;
use crate::{output, time};

/// Show all about containers, as JSON
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Containers
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Inspect {
    /// Shows them as one array.
    ///
    /// # Errors
    /// One is not there.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let mut all = Vec::new();
        for id in &self.ids {
            all.push(everything(connection, id).await?);
        }
        output::json(&Value::Array(all), false)
    }
}

async fn everything(connection: &Connection, id: &str) -> Result<Value> {
    let request = GetContainerRequest { id: id.to_owned() };
    let record = match connection.containers().get(request).await.about(id) {
        Err(error) if error.is_not_found() => None,
        answer => answer?.into_inner().container,
    };
    let first = Process {
        connection: connection.clone(),
        container: id.to_owned(),
        exec: String::new(),
    };
    let task = match first.state().await {
        Err(error) if error.is_not_found() => None,
        state => Some(state?),
    };
    if record.is_none() && task.is_none() {
        return Err(Error::said(format!("{id}: no such container")));
    }
    Ok(json!({
        "id": id,
        "container": record.map(|record| {
            let runtime = record.runtime.unwrap_or_default();
            let spec = record.spec.unwrap_or_default();
            json!({
                "labels": record.labels,
                "image": record.image,
                "runtime": runtime.name,
                "runtime_options": runtime.options.map(|options| options.type_url),
                "snapshotter": record.snapshotter,
                "snapshot_key": record.snapshot_key,
                "created_at": time::rfc3339(record.created_at.as_ref()),
                "updated_at": time::rfc3339(record.updated_at.as_ref()),
                "extensions": record.extensions.keys().collect::<Vec<_>>(),
                "spec": serde_json::from_slice::<Value>(&spec.value).ok(),
            })
        }),
        "task": task.map(|task| json!({
            "pid": task.pid,
            "status": task.status().as_str_name().to_ascii_lowercase(),
            "exit_status": task.exit_status,
            "exited_at": time::rfc3339(task.exited_at.as_ref()),
            "terminal": task.terminal,
            "stdin": task.stdin,
            "stdout": task.stdout,
            "stderr": task.stderr,
        })),
    }))
}
