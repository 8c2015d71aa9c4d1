//! `wherry events`: what happens, as it happens.

use clap::Args;
use core_api::events::{
    ContainerCreate, ContainerDelete, ContainerUpdate, NamespaceCreate, NamespaceDelete,
    NamespaceUpdate, TaskCheckpointed, TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted,
    TaskExit, TaskOom, TaskPaused, TaskResumed, TaskStart,
};
use core_api::events_service::{Envelope, SubscribeRequest};
use core_api::prost::Message;
use core_api::{Any, Timestamp};
use serde_json::{Value, json};

use crate::cli::Format;
use crate::connection::{Connection, is_lost};
use crate::error::{Error, Result};
use crate::{output, time};

/// Show what happens, until interrupted
///
/// A filter is one of containerd's: topic=="/tasks/exit", topic~=|^/tasks/|, event.container_id==ID;
/// selectors joined by commas must all hold, of several filters one.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Events of every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to write them: lines for people, or one JSON object a line
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Filters
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

impl Events {
    /// Shows them for as long as there is a daemon.
    ///
    /// # Errors
    /// The daemon refuses the filters, or has ended.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let request = SubscribeRequest {
            filters: self.filters(connection.namespace()),
        };
        let refuse = |status: tonic::Status| {
            if is_lost(&status) {
                Error::said(format!("the daemon at {} has ended", connection.socket()))
            } else {
                Error::refused("events", status)
            }
        };
        let answer = connection.events().subscribe(request).await;
        let mut stream = answer.map_err(refuse)?.into_inner();
        while let Some(envelope) = stream.message().await.map_err(refuse)? {
            self.tell(&envelope)?;
        }
        Err(Error::said(format!(
            "the daemon at {} has ended",
            connection.socket()
        )))
    }

    fn filters(&self, namespace: &str) -> Vec<String> {
        if self.all_namespaces {
            return self.filters.clone();
        }
        let ours = format!("namespace=={namespace:?}");
        if self.filters.is_empty() {
            return vec![ours];
        }
        let each = self.filters.iter();
        each.map(|filter| format!("{ours},{filter}")).collect()
    }

    fn tell(&self, envelope: &Envelope) -> Result<()> {
        let at = time::rfc3339(envelope.timestamp.as_ref());
        let event = envelope.event.as_ref().map_or(Value::Null, fields);
        if self.format == Format::Json {
            let line = json!({
                "timestamp": at,
                "namespace": envelope.namespace,
                "topic": envelope.topic,
                "event": event,
            });
            return output::json(&line, true);
        }
        let (namespace, topic) = (&envelope.namespace, &envelope.topic);
        output::say(format_args!("{at} {namespace} {topic} {event}"))
    }
}

/// The fields of an event; of an unknown one its type and its bytes.
fn fields(event: &Any) -> Value {
    let name = event.type_url.rsplit('/').next().unwrap_or_default();
    let bare = name.strip_prefix("containerd.events.").unwrap_or(name);
    known(bare, &event.value).unwrap_or_else(|| {
        let bytes = event.value.iter().map(|byte| format!("{byte:02x}"));
        json!({ "type": event.type_url, "bytes": bytes.collect::<String>() })
    })
}

fn known(name: &str, bytes: &[u8]) -> Option<Value> {
    fn read<M: Message + Default>(bytes: &[u8]) -> Option<M> {
        M::decode(bytes).ok()
    }
    let at = |time: Option<&Timestamp>| time::rfc3339(time);
    let runtime = |name: Option<String>| name.unwrap_or_default();
    Some(match name {
        "TaskCreate" => {
            let event: TaskCreate = read(bytes)?;
            let io = event.io.unwrap_or_default();
            json!({
                "container_id": event.container_id, "pid": event.pid, "bundle": event.bundle,
                "checkpoint": event.checkpoint,
                "io": {
                    "stdin": io.stdin, "stdout": io.stdout, "stderr": io.stderr,
                    "terminal": io.terminal,
                },
            })
        }
        "TaskStart" => {
            let event: TaskStart = read(bytes)?;
            json!({ "container_id": event.container_id, "pid": event.pid })
        }
        "TaskExit" => {
            let event: TaskExit = read(bytes)?;
            json!({
                "container_id": event.container_id, "id": event.id, "pid": event.pid,
                "exit_status": event.exit_status, "exited_at": at(event.exited_at.as_ref()),
            })
        }
        "TaskDelete" => {
            let event: TaskDelete = read(bytes)?;
            json!({
                "container_id": event.container_id, "id": event.id, "pid": event.pid,
                "exit_status": event.exit_status, "exited_at": at(event.exited_at.as_ref()),
            })
        }
        "TaskExecAdded" => {
            let event: TaskExecAdded = read(bytes)?;
            json!({ "container_id": event.container_id, "exec_id": event.exec_id })
        }
        "TaskExecStarted" => {
            let event: TaskExecStarted = read(bytes)?;
            json!({
                "container_id": event.container_id, "exec_id": event.exec_id, "pid": event.pid,
            })
        }
        "TaskCheckpointed" => {
            let event: TaskCheckpointed = read(bytes)?;
            json!({ "container_id": event.container_id, "checkpoint": event.checkpoint })
        }
        "TaskOOM" => json!({ "container_id": read::<TaskOom>(bytes)?.container_id }),
        "TaskPaused" => json!({ "container_id": read::<TaskPaused>(bytes)?.container_id }),
        "TaskResumed" => json!({ "container_id": read::<TaskResumed>(bytes)?.container_id }),
        "ContainerCreate" => {
            let event: ContainerCreate = read(bytes)?;
            let runtime = runtime(event.runtime.map(|runtime| runtime.name));
            json!({ "id": event.id, "image": event.image, "runtime": runtime })
        }
        "ContainerUpdate" => {
            let event: ContainerUpdate = read(bytes)?;
            json!({
                "id": event.id, "image": event.image, "labels": event.labels,
                "snapshot_key": event.snapshot_key,
            })
        }
        "ContainerDelete" => json!({ "id": read::<ContainerDelete>(bytes)?.id }),
        "NamespaceCreate" => {
            let event: NamespaceCreate = read(bytes)?;
            json!({ "name": event.name, "labels": event.labels })
        }
        "NamespaceUpdate" => {
            let event: NamespaceUpdate = read(bytes)?;
            json!({ "name": event.name, "labels": event.labels })
        }
        "NamespaceDelete" => json!({ "name": read::<NamespaceDelete>(bytes)?.name }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(all_namespaces: bool, filters: &[&str]) -> Vec<String> {
        let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
        let format = Format::Table;
        let events = Events {
            all_namespaces,
            format,
            filters,
        };
        events.filters("n")
    }

    #[test]
    fn filters_hold_within_the_namespace() {
        assert_eq!(events(false, &[]), ["namespace==\"n\""]);
        assert_eq!(
            events(false, &["a==b,c", "d"]),
            ["namespace==\"n\",a==b,c", "namespace==\"n\",d"]
        );
        assert_eq!(events(true, &["d"]), ["d"]);
    }

    #[test]
    fn an_unknown_or_broken_event_is_shown_by_its_bytes() {
        let event = |type_url: &str, value: &[u8]| {
            fields(&Any {
                type_url: type_url.to_owned(),
                value: value.to_owned(),
            })
        };
        assert_eq!(
            event("x/containerd.events.TaskOOM", &[10, 1, 97])["container_id"],
            "a"
        );
        assert_eq!(event("containerd.events.TaskOOM", &[255])["bytes"], "ff");
        assert_eq!(event("other", &[1])["type"], "other");
    }
}
