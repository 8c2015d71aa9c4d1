//! Images between `wherry` and a real registry, Debian's `docker-registry`, under wherryd and
//! under Debian's containerd.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    reason = "tests run programs, and end where something is not as it must be"
)]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod broken;
mod proxy;
mod pull;
mod push;
mod server;
