//! What containerd and a shim say to each other around the `start` action: protobuf since
//! containerd 2.3, the bare address before (shim-contract section 1.3).

pub use containerd_shim_protos::bootstrap_api::{
    BootstrapParams, BootstrapResult, Extension, LogLevel,
};

/// The version of the task API that a [`BootstrapResult`] announces: `containerd.task.v3.Task`.
pub const RESULT_VERSION: i32 = 3;
/// The only protocol spoken on a shim's socket.
pub const PROTOCOL: &str = "ttrpc";
/// The scheme in front of a socket's path in a shim's address.
pub const ADDRESS_SCHEME: &str = "unix://";
/// Where the sockets of all shims are, unless `socket_dir` says otherwise.
pub const SOCKET_DIR: &str = "/run/containerd/s";

/// Environment of `start`, `delete` and the served process.
pub mod env {
    /// Address of containerd's ttrpc server, where events go.
    pub const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
    /// When not empty, the shim and its containers get a core scheduling group of their own.
    pub const SCHED_CORE: &str = "SCHED_CORE";
    /// Concurrency of the Go runtime, which runc is written in and inherits from the shim.
    pub const GOMAXPROCS: &str = "GOMAXPROCS";
    /// systemd's notification socket, which belongs to containerd and to nobody below it.
    pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
}
