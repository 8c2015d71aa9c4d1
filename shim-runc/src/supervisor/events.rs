//! Events of the rules as they go on the wire (shim-contract section 3).

use protobuf::MessageField;
use task_api::events::{
    TaskCreate, TaskDelete, TaskEvent, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM,
    TaskPaused, TaskResumed, TaskStart,
};
use task_api::time::to_timestamp;

use super::host::Host;
use crate::container::{Event, Target};

impl Host {
    /// The event with what only the host knows: ids, the bundle, what the rootfs was made of.
    pub(super) fn event(&mut self, event: Event) -> TaskEvent {
        let container_id = self.id.clone();
        match event {
            Event::Create { pid } => TaskEvent::Create(self.create_event(pid)),
            Event::Start { pid } => TaskEvent::Start(TaskStart {
                container_id,
                pid: wire(pid),
                ..Default::default()
            }),
            Event::ExecAdded { id } => TaskEvent::ExecAdded(TaskExecAdded {
                container_id,
                exec_id: id,
                ..Default::default()
            }),
            Event::ExecStarted { id, pid } => TaskEvent::ExecStarted(TaskExecStarted {
                container_id,
                exec_id: id,
                pid: wire(pid),
                ..Default::default()
            }),
            Event::Exit { target, pid, exit } => TaskEvent::Exit(TaskExit {
                id: match target {
                    Target::Init => container_id.clone(),
                    Target::Exec(id) => id,
                },
                container_id,
                pid: wire(pid),
                exit_status: exit.status,
                exited_at: MessageField::some(to_timestamp(exit.at)),
                ..Default::default()
            }),
            Event::Delete { pid, exit } => TaskEvent::Delete(TaskDelete {
                container_id,
                pid: wire(pid),
                exit_status: exit.status,
                exited_at: MessageField::some(to_timestamp(exit.at)),
                ..Default::default()
            }),
            Event::Paused => TaskEvent::Paused(TaskPaused {
                container_id,
                ..Default::default()
            }),
            Event::Resumed => TaskEvent::Resumed(TaskResumed {
                container_id,
                ..Default::default()
            }),
            Event::Oom => TaskEvent::Oom(TaskOOM {
                container_id,
                ..Default::default()
            }),
        }
    }

    fn create_event(&mut self, pid: i32) -> TaskCreate {
        let io = self.io(&Target::Init);
        let rootfs = self
            .take_mounts()
            .into_iter()
            .map(|mount| task_api::events::Mount {
                type_: mount.kind,
                source: mount.source,
                target: mount.target,
                options: mount.options,
                ..Default::default()
            })
            .collect();
        TaskCreate {
            container_id: self.id.clone(),
            bundle: self.bundle.to_string_lossy().into_owned(),
            rootfs,
            io: MessageField::some(TaskIO {
                stdin: io.stdin,
                stdout: io.stdout,
                stderr: io.stderr,
                terminal: io.terminal,
                ..Default::default()
            }),
            checkpoint: self.checkpoint.clone(),
            pid: wire(pid),
            ..Default::default()
        }
    }
}

/// A pid as the messages carry it; we hold none that is negative.
fn wire(pid: i32) -> u32 {
    u32::try_from(pid).unwrap_or_default()
}
