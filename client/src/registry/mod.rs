//! Registries: what an image's name means, which hosts serve it, with which credentials, and the
//! distribution protocol with them. Knows nothing of a daemon.
//!
//! `name.rs` reads names; `hosts.rs` finds the hosts, by `hosts.toml` (its file `hosts_file.rs`);
//! `credentials.rs` who we are; `host.rs` speaks HTTP with one host, `auth.rs` gets its tokens;
//! `registry.rs` asks the hosts in turn, `fetch.rs` reads and `upload.rs` writes. `fault.rs` says
//! what went wrong.

mod auth;
mod credentials;
mod fault;
mod fetch;
mod host;
mod hosts;
mod hosts_file;
mod name;
mod options;
#[expect(clippy::module_inception, reason = "a registry is what this is about")]
mod registry;
mod upload;

pub(crate) use name::Name;
pub(crate) use options::Options;
pub(crate) use registry::{Faults, Registry};
pub(crate) use upload::Uploaded;
