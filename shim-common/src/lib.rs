//! What every runtime-v2 shim needs and no runtime in particular: command line, bootstrap,
//! socket, server, reaper, publisher, stdio, cgroups, log.

pub mod bootstrap;
pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod helper;
pub mod log;
pub mod publisher;
pub mod reaper;
pub mod server;
pub mod socket;
pub mod spec;
pub mod start;
pub mod stdio;
pub mod watch;
