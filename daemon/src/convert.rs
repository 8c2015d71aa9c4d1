//! Between the two sets of messages: prost's, which clients speak, and rust-protobuf's, which
//! shims speak. Payloads of type Any pass as the bytes they are.

use core_api::task_types::{Process, ProcessInfo};
use core_api::{Any, Timestamp, types};
use protobuf::{EnumOrUnknown, MessageField};
use task_api::task;

/// An Any for a shim.
pub fn any_to_shim(any: Option<Any>) -> MessageField<task::Any> {
    any.map(|any| task::Any {
        type_url: any.type_url,
        value: any.value,
        ..task::Any::default()
    })
    .into()
}

/// An Any from a shim.
pub fn any(any: MessageField<task::Any>) -> Option<Any> {
    any.into_option().map(|any| Any {
        type_url: any.type_url,
        value: any.value,
    })
}

/// A time from a shim.
pub fn timestamp(time: MessageField<task::Timestamp>) -> Option<Timestamp> {
    time.into_option().map(|time| Timestamp {
        seconds: time.seconds,
        nanos: time.nanos,
    })
}

/// A time for a shim's message.
pub fn timestamp_to_shim(time: Option<Timestamp>) -> MessageField<task::Timestamp> {
    time.map(|time| task::Timestamp {
        seconds: time.seconds,
        nanos: time.nanos,
        ..task::Timestamp::default()
    })
    .into()
}

/// A mount for a shim.
pub fn mount(mount: types::Mount) -> task::Mount {
    task::Mount {
        type_: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
        ..task::Mount::default()
    }
}

/// A process as clients see it: by its own id. As with containerd, the container's is left out.
pub fn process(id: &str, state: task::StateResponse) -> Process {
    Process {
        container_id: String::new(),
        id: id.to_owned(),
        pid: state.pid,
        status: EnumOrUnknown::value(&state.status),
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: timestamp(state.exited_at),
    }
}

/// One of a container's processes.
pub fn process_info(info: task::ProcessInfo) -> ProcessInfo {
    ProcessInfo {
        pid: info.pid,
        info: any(info.info),
    }
}
