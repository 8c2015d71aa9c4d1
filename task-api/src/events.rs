//! The events a shim publishes: which message goes under which topic, and the envelope around it.

use std::time::SystemTime;

pub use containerd_shim_protos::api::ForwardRequest;
pub use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
pub use containerd_shim_protos::shim::event::Envelope;
pub use containerd_shim_protos::types::mount::Mount;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};

use crate::time;

/// ttrpc name of the service at containerd that takes events, by its method `Forward`.
pub const EVENTS_SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// Topics, one per kind of event (shim-contract section 3).
pub mod topic {
    /// A container was created.
    pub const CREATE: &str = "/tasks/create";
    /// A container's first process was started.
    pub const START: &str = "/tasks/start";
    /// An exec was registered.
    pub const EXEC_ADDED: &str = "/tasks/exec-added";
    /// An exec was started.
    pub const EXEC_STARTED: &str = "/tasks/exec-started";
    /// A process, first or exec, has ended.
    pub const EXIT: &str = "/tasks/exit";
    /// A container was deleted.
    pub const DELETE: &str = "/tasks/delete";
    /// A container was paused.
    pub const PAUSED: &str = "/tasks/paused";
    /// A container was resumed.
    pub const RESUMED: &str = "/tasks/resumed";
    /// The kernel killed a process for want of memory.
    pub const OOM: &str = "/tasks/oom";
}

/// One event of a task.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the message of the same name")]
pub enum TaskEvent {
    Create(TaskCreate),
    Start(TaskStart),
    ExecAdded(TaskExecAdded),
    ExecStarted(TaskExecStarted),
    Exit(TaskExit),
    Delete(TaskDelete),
    Paused(TaskPaused),
    Resumed(TaskResumed),
    Oom(TaskOOM),
}

impl TaskEvent {
    /// The topic it is published under.
    pub fn topic(&self) -> &'static str {
        match self {
            Self::Create(_) => topic::CREATE,
            Self::Start(_) => topic::START,
            Self::ExecAdded(_) => topic::EXEC_ADDED,
            Self::ExecStarted(_) => topic::EXEC_STARTED,
            Self::Exit(_) => topic::EXIT,
            Self::Delete(_) => topic::DELETE,
            Self::Paused(_) => topic::PAUSED,
            Self::Resumed(_) => topic::RESUMED,
            Self::Oom(_) => topic::OOM,
        }
    }

    /// The type URL of its message: the bare name, which is all that Go's typeurl looks at.
    pub fn type_url(&self) -> &'static str {
        match self {
            Self::Create(_) => "containerd.events.TaskCreate",
            Self::Start(_) => "containerd.events.TaskStart",
            Self::ExecAdded(_) => "containerd.events.TaskExecAdded",
            Self::ExecStarted(_) => "containerd.events.TaskExecStarted",
            Self::Exit(_) => "containerd.events.TaskExit",
            Self::Delete(_) => "containerd.events.TaskDelete",
            Self::Paused(_) => "containerd.events.TaskPaused",
            Self::Resumed(_) => "containerd.events.TaskResumed",
            Self::Oom(_) => "containerd.events.TaskOOM",
        }
    }

    /// The container it is about.
    pub fn container_id(&self) -> &str {
        match self {
            Self::Create(event) => &event.container_id,
            Self::Start(event) => &event.container_id,
            Self::ExecAdded(event) => &event.container_id,
            Self::ExecStarted(event) => &event.container_id,
            Self::Exit(event) => &event.container_id,
            Self::Delete(event) => &event.container_id,
            Self::Paused(event) => &event.container_id,
            Self::Resumed(event) => &event.container_id,
            Self::Oom(event) => &event.container_id,
        }
    }

    /// The message packed with its type.
    ///
    /// # Errors
    /// Those of the encoder, of which these messages (no required fields) raise none below 2 GiB.
    pub fn to_any(&self) -> protobuf::Result<Any> {
        let value = match self {
            Self::Create(event) => event.write_to_bytes(),
            Self::Start(event) => event.write_to_bytes(),
            Self::ExecAdded(event) => event.write_to_bytes(),
            Self::ExecStarted(event) => event.write_to_bytes(),
            Self::Exit(event) => event.write_to_bytes(),
            Self::Delete(event) => event.write_to_bytes(),
            Self::Paused(event) => event.write_to_bytes(),
            Self::Resumed(event) => event.write_to_bytes(),
            Self::Oom(event) => event.write_to_bytes(),
        }?;
        Ok(Any {
            type_url: self.type_url().to_owned(),
            value,
            ..Any::default()
        })
    }

    /// [`TaskEvent::to_any`] for an event that is not needed any more.
    ///
    /// # Errors
    /// As there.
    pub fn into_any(self) -> protobuf::Result<Any> {
        self.to_any()
    }

    /// The event as it is forwarded: with the time it happened and the namespace of its container.
    ///
    /// # Errors
    /// As [`TaskEvent::to_any`].
    pub fn envelope(&self, namespace: &str, at: SystemTime) -> protobuf::Result<Envelope> {
        Ok(Envelope {
            timestamp: MessageField::some(time::to_timestamp(at)),
            namespace: namespace.to_owned(),
            topic: self.topic().to_owned(),
            event: MessageField::some(self.to_any()?),
            ..Envelope::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_an_event_is_the_full_name_of_its_message() {
        let events = [
            (
                TaskEvent::Create(TaskCreate::default()),
                "TaskCreate",
                "create",
            ),
            (TaskEvent::Start(TaskStart::default()), "TaskStart", "start"),
            (
                TaskEvent::ExecAdded(TaskExecAdded::default()),
                "TaskExecAdded",
                "exec-added",
            ),
            (
                TaskEvent::ExecStarted(TaskExecStarted::default()),
                "TaskExecStarted",
                "exec-started",
            ),
            (TaskEvent::Exit(TaskExit::default()), "TaskExit", "exit"),
            (
                TaskEvent::Delete(TaskDelete::default()),
                "TaskDelete",
                "delete",
            ),
            (
                TaskEvent::Paused(TaskPaused::default()),
                "TaskPaused",
                "paused",
            ),
            (
                TaskEvent::Resumed(TaskResumed::default()),
                "TaskResumed",
                "resumed",
            ),
            (TaskEvent::Oom(TaskOOM::default()), "TaskOOM", "oom"),
        ];
        for (event, message, topic) in events {
            assert_eq!(event.type_url(), format!("containerd.events.{message}"));
            assert_eq!(event.topic(), format!("/tasks/{topic}"));
        }
    }

    #[test]
    fn an_envelope_holds_the_event_whole() {
        let exit = TaskExit {
            container_id: "c".into(),
            id: "e".into(),
            pid: 7,
            exit_status: 137,
            exited_at: MessageField::some(time::unset()),
            ..TaskExit::default()
        };
        let event = TaskEvent::Exit(exit.clone());
        assert_eq!(event.container_id(), "c");
        let envelope = event.envelope("ns", SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(
            (envelope.namespace.as_str(), envelope.topic.as_str()),
            ("ns", topic::EXIT)
        );
        assert_eq!(
            TaskExit::parse_from_bytes(&envelope.event.value).unwrap(),
            exit
        );
    }
}
