//! wherryd: the core daemon. It answers containerd's API, loads shims by `runtime_type` as
//! containerd does, and keeps what it knows on disk.
//!
//! `grpc/` reads requests and writes answers; `store/` has the metadata, `shim/` the tasks,
//! `exchange` the events, `filter` containerd's filter language for all of them; `serve` puts
//! them together.

pub mod accept;
pub mod bolt;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod content;
pub mod convert;
pub mod diff;
pub mod dump;
pub mod exchange;
pub mod filter;
pub mod gc;
pub mod grpc;
pub mod ids;
pub mod import;
pub mod log;
pub mod metrics;
pub mod missed;
pub mod notify;
pub mod oci_hook;
pub mod publish;
pub mod serve;
pub mod setup;
pub mod shim;
pub mod snapshot;
pub mod status;
pub mod store;
pub mod ttrpc;
pub mod unpack;
pub mod verify;
pub mod version;
