//! The wire contract between containerd and a runtime-v2 shim: messages, topics, options,
//! bootstrap, bundle file names and status codes. No I/O.

pub mod bootstrap;
pub mod bundle;
pub mod events;
pub mod options;
pub mod status;
pub mod task;
pub mod time;
