//! Shims: from the name of a runtime to a running process, the calls to it, and what happens
//! when it ends.

mod bootstrap;
pub mod client;
pub mod create;
pub mod info;
pub mod ledger;
pub mod log_pipe;
pub mod manager;
pub mod options;
pub mod output;
pub mod process;
pub mod reload;
pub mod remove;
pub mod resolve;
pub mod task;
pub mod tell;
