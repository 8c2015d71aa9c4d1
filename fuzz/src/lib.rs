//! The modules that are fuzzed, taken from the tree by their paths: built with instrumentation and
//! without everything else that is in their crates, which would take minutes. They have their
//! tests and their lints where they belong; here they are only compiled.
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    clippy::all,
    reason = "each is used in part, and checked where it belongs"
)]

#[path = "../../daemon/src/filter.rs"]
pub mod filter;

pub mod diff;
pub mod images;

// Where the client's modules look for the API and for their error.
extern crate self as core_api;

/// In place of the generated messages.
pub mod types {
    use std::collections::BTreeMap;

    pub struct Descriptor {
        pub media_type: String,
        pub digest: String,
        pub size: i64,
        pub annotations: BTreeMap<String, String>,
    }
}

/// In place of the client's, which knows the daemon's refusals too.
pub mod error {
    #[derive(Debug)]
    pub struct Error(pub String);

    pub type Result<T> = std::result::Result<T, Error>;

    impl Error {
        pub fn said(text: impl Into<String>) -> Self {
            Self(text.into())
        }
    }
}

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
