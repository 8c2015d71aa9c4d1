//! Events as the sink saw them, decoded.

use std::time::{Instant, SystemTime};

use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use protobuf::Message;

/// One event in the order of its arrival.
#[derive(Clone, Debug)]
pub struct Event {
    /// `/tasks/…`
    pub topic: String,
    /// Namespace of the envelope.
    pub namespace: String,
    /// When the sink had read it.
    pub arrived: Instant,
    /// The envelope's own time.
    pub stamped: Option<SystemTime>,
    /// The Any's type, as sent.
    pub type_url: String,
    /// The message.
    pub payload: Payload,
    /// The message's bytes, to compare a delivery with its repetition.
    pub bytes: Vec<u8>,
}

/// The message inside an event, by its topic.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the variants are containerd's own event messages"
)]
pub enum Payload {
    Create(TaskCreate),
    Start(TaskStart),
    ExecAdded(TaskExecAdded),
    ExecStarted(TaskExecStarted),
    Exit(TaskExit),
    Delete(TaskDelete),
    Paused(TaskPaused),
    Resumed(TaskResumed),
    Oom(TaskOOM),
    Other,
}

impl Payload {
    /// Decodes the Any of an event on `topic`.
    pub fn decode(topic: &str, any: &Any) -> Self {
        fn message<M: Message>(any: &Any, name: &str) -> Option<M> {
            let told = any.type_url.rsplit('/').next().unwrap_or_default();
            (told == name).then(|| M::parse_from_bytes(&any.value).ok())?
        }
        let decoded = match topic {
            "/tasks/create" => message(any, "containerd.events.TaskCreate").map(Self::Create),
            "/tasks/start" => message(any, "containerd.events.TaskStart").map(Self::Start),
            "/tasks/exec-added" => {
                message(any, "containerd.events.TaskExecAdded").map(Self::ExecAdded)
            }
            "/tasks/exec-started" => {
                message(any, "containerd.events.TaskExecStarted").map(Self::ExecStarted)
            }
            "/tasks/exit" => message(any, "containerd.events.TaskExit").map(Self::Exit),
            "/tasks/delete" => message(any, "containerd.events.TaskDelete").map(Self::Delete),
            "/tasks/paused" => message(any, "containerd.events.TaskPaused").map(Self::Paused),
            "/tasks/resumed" => message(any, "containerd.events.TaskResumed").map(Self::Resumed),
            "/tasks/oom" => message(any, "containerd.events.TaskOOM").map(Self::Oom),
            _ => None,
        };
        decoded.unwrap_or(Self::Other)
    }

    /// The container that the event speaks of.
    pub fn container(&self) -> &str {
        match self {
            Self::Create(m) => &m.container_id,
            Self::Start(m) => &m.container_id,
            Self::ExecAdded(m) => &m.container_id,
            Self::ExecStarted(m) => &m.container_id,
            Self::Exit(m) => &m.container_id,
            Self::Delete(m) => &m.container_id,
            Self::Paused(m) => &m.container_id,
            Self::Resumed(m) => &m.container_id,
            Self::Oom(m) => &m.container_id,
            Self::Other => "",
        }
    }
}

impl Event {
    /// `exit c1` or `exit c1/e1 7`: the event in one word list, for comparisons of order.
    pub fn brief(&self) -> String {
        let topic = self.topic.trim_start_matches("/tasks/");
        let id = self.payload.container();
        match &self.payload {
            Payload::ExecAdded(m) => format!("{topic} {id}/{}", m.exec_id),
            Payload::ExecStarted(m) => format!("{topic} {id}/{}", m.exec_id),
            Payload::Exit(m) if m.id == m.container_id => format!("{topic} {id} {}", m.exit_status),
            Payload::Exit(m) => format!("{topic} {id}/{} {}", m.id, m.exit_status),
            Payload::Delete(m) => format!("{topic} {id} {}", m.exit_status),
            _ => format!("{topic} {id}"),
        }
    }
}
