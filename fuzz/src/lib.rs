//! The modules that are fuzzed, taken from the tree by their paths: built with instrumentation and
//! without everything else that is in their crates, which would take minutes. They have their
//! tests and their lints where they belong; here they are only compiled.
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "each is used in part"
)]

#[path = "../../daemon/src/filter.rs"]
pub mod filter;

pub mod diff;

/// In place of the daemon's, which knows shims too.
pub mod status {
    use std::fmt::Display;

    use tonic::Status;

    pub fn invalid(what: impl Display) -> Status {
        Status::invalid_argument(what.to_string())
    }

    pub fn unimplemented(what: impl Display) -> Status {
        Status::unimplemented(what.to_string())
    }

    pub fn unknown(what: impl Display) -> Status {
        Status::unknown(what.to_string())
    }
}
