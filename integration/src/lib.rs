//! Black-box tests and benchmarks for runtime-v2 shims: the part of containerd, played over ttrpc.
//!
//! The shim under test is a path ([`target::shim_binary`]) and nothing of its code is linked
//! here, so every promise is checked the way containerd would notice it: a command line, a
//! start reply, ttrpc calls, events, descriptors, processes, mounts and files.
//!
//! A test makes a [`bed::Bed`] (own namespace, runtime root, cgroup parent, event sink), asks it
//! for a [`bundle::Bundle`] and a [`shim::Shim`], talks through [`client::TaskClient`] and ends
//! with [`bed::Bed::finish`], which fails on whatever was left behind.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness step that cannot be done is a failed test, told by its panic"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the harness starts and collects its own children; the one-reaper rule is the shims'"
)]
#![expect(
    clippy::print_stdout,
    reason = "skips and differences are told on the test's own output"
)]

pub mod bed;
pub mod bench;
pub mod bundle;
pub mod chance;
pub mod client;
pub mod conformance;
pub mod delete;
pub mod e2e;
pub mod events;
pub mod host;
pub mod hybrid;
pub mod leaks;
pub mod mutate;
pub mod shim;
pub mod sink;
pub mod soak;
pub mod stdio;
pub mod target;
mod traces;
pub mod wait;
pub mod wire;

/// What nearly every test needs, in one `use`.
pub mod prelude {
    pub use crate::bed::Bed;
    pub use crate::bundle::{Bundle, Spec};
    pub use crate::chance::Chance;
    pub use crate::client::{CallError, TaskClient};
    pub use crate::events::{Event, Payload};
    pub use crate::host;
    pub use crate::leaks::Leaks;
    pub use crate::shim::{Protocol, Reply, Shim, StartRequest};
    pub use crate::sink::EventSink;
    pub use crate::stdio::{InputFifo, OutputFifo};
    pub use crate::target;
    pub use crate::wait::{LONG, SHORT, eventually, eventually_some, holds};
    pub use crate::{known_difference, skip_unless};
    pub use containerd_shim_protos::api;
    pub use containerd_shim_protos::types::task::Status;
    pub use std::time::Duration;
    pub use ttrpc::Code;
}
