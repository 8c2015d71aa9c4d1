//! The driver of an OCI runtime's command line. Nothing here waits: [`command`] builds calls,
//! [`call`] starts one and reads its outcome once the reaper has reported its exit, [`error`] is
//! the only place that reads runtimes' error text.

pub mod call;
pub mod command;
pub mod error;
pub mod kind;
pub mod options;
pub mod pid_file;
pub mod ps;

pub use call::{ContainerStdio, Output, Running};
pub use command::{Call, CheckpointArgs, CreateArgs, ExecArgs, RestoreArgs, Runtime};
pub use error::{ErrorKind, RuntimeError};
pub use kind::{Operation, RuntimeKind};
pub use options::RuncOptions;
