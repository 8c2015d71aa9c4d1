//! ttrpc as the daemon needs it: unary calls over unix sockets, with so little held per connection
//! that one to and one from each container's shim can stay open (ADR 0009).
//!
//! A connection at rest costs its socket, one task of a few hundred bytes, and no buffer.

pub mod client;
pub mod frame;
pub mod server;

use std::fmt;

use containerd_shim_protos::ttrpc;
use task_api::status::{Code, Refusal};

/// An answer that says no.
fn refused(code: Code, text: impl fmt::Display) -> ttrpc::Error {
    let message = text.to_string();
    Refusal { code, message }.into()
}
