//! The Task service: its requests and responses, and the names under which it is served.
//!
//! `containerd.task.v2.Task` (containerd 1.x) and `containerd.task.v3.Task` (2.x) have the same
//! methods and wire-identical messages, so one set of types and one implementation serve both.

pub use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    Mount, PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
pub use containerd_shim_protos::shim::oci::ProcessDetails;
pub use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
pub use protobuf::well_known_types::any::Any;
pub use protobuf::well_known_types::timestamp::Timestamp;

/// ttrpc name of the service that containerd 1.x calls.
pub const SERVICE_V2: &str = "containerd.task.v2.Task";
/// ttrpc name of the service that containerd 2.x calls.
pub const SERVICE_V3: &str = "containerd.task.v3.Task";

/// Type name of [`ProcessDetails`], which marks the execs among the processes of a Pids reply.
pub const PROCESS_DETAILS: &str = "containerd.runc.v1.ProcessDetails";
/// Type name of the Stats payload on a cgroup v1 (or hybrid) machine.
pub const METRICS_V1: &str = "io.containerd.cgroups.v1.Metrics";
/// Type name of the Stats payload on a cgroup v2 machine.
pub const METRICS_V2: &str = "io.containerd.cgroups.v2.Metrics";
/// Type URL under which `-info` carries the runtime's features, as JSON.
pub const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
