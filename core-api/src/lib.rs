//! containerd's gRPC API: the messages, servers and clients of the services that Wherry speaks.
//!
//! The definitions under `proto/` are Wherry's own text of public wire facts: service, method,
//! message, field number and type. What containerd's clients send decides; a field that is not
//! here is skipped by the decoder and not kept. No I/O, no rules.

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::or_fun_call,
        reason = "written by the generator; the .proto files carry the words"
    )]
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

pub use generated::containerd::events;
pub use generated::containerd::runc::v1 as runc_options;
pub use generated::containerd::services::containers::v1 as containers;
pub use generated::containerd::services::content::v1 as content;
pub use generated::containerd::services::diff::v1 as diff;
pub use generated::containerd::services::events::v1 as events_service;
pub use generated::containerd::services::images::v1 as images;
pub use generated::containerd::services::introspection::v1 as introspection;
pub use generated::containerd::services::leases::v1 as leases;
pub use generated::containerd::services::namespaces::v1 as namespaces;
pub use generated::containerd::services::snapshots::v1 as snapshots;
pub use generated::containerd::services::tasks::v1 as tasks;
pub use generated::containerd::services::version::v1 as version;
pub use generated::containerd::types;
pub use generated::containerd::v1::types as task_types;
pub use generated::google::rpc;
pub use generated::grpc::health::v1 as health;
pub use prost;
pub use prost_types::{Any, FieldMask, Timestamp};

/// Who sends how many messages in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One each.
    Unary,
    /// One is asked, many are answered.
    ServerStream,
    /// Many are asked, one is answered.
    ClientStream,
    /// Many each.
    BidiStream,
}

/// One call of the API.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// `/SERVICE/METHOD`, as it is in the request.
    pub path: &'static str,
    /// Who sends how many messages.
    pub kind: Kind,
}

/// Every call of the services that are defined here.
pub const CALLS: &[Call] = include!(concat!(env!("OUT_DIR"), "/calls.rs"));
