//! Refusals as gRPC statuses: what failed, a colon and the name of the class, as containerd's
//! clients match them.

use std::fmt::Display;

use containerd_shim_protos::ttrpc;
use tonic::{Code, Status};

/// `<what>: not found`.
pub fn not_found(what: impl Display) -> Status {
    Status::not_found(format!("{what}: not found"))
}

/// `<what>: already exists`.
pub fn already_exists(what: impl Display) -> Status {
    Status::already_exists(format!("{what}: already exists"))
}

/// `<what>: failed precondition`.
pub fn precondition(what: impl Display) -> Status {
    Status::failed_precondition(format!("{what}: failed precondition"))
}

/// `<what>: invalid argument`.
pub fn invalid(what: impl Display) -> Status {
    Status::invalid_argument(format!("{what}: invalid argument"))
}

/// `<what>: not implemented`.
pub fn unimplemented(what: impl Display) -> Status {
    Status::unimplemented(format!("{what}: not implemented"))
}

/// A failure of no class, with its text as it is.
pub fn unknown(what: impl Display) -> Status {
    Status::unknown(what.to_string())
}

/// A failure of the file system: a full disk has a class of its own.
pub fn from_io(error: std::io::Error) -> Status {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => Status::resource_exhausted(error.to_string()),
        _ => unknown(error),
    }
}

/// What a shim answered, with its code and text unchanged; a connection that ended is `NotFound`,
/// because then the task is gone and is being cleaned up.
pub fn from_shim(error: ttrpc::Error, task: &str) -> Status {
    match error {
        ttrpc::Error::RpcStatus(status) => {
            let code = match status.code() {
                // The Rust server's words for a service or method it does not have.
                ttrpc::Code::INVALID_ARGUMENT | ttrpc::Code::NOT_FOUND
                    if is_no_such_call(status.message()) =>
                {
                    Code::Unimplemented
                }
                code => Code::from_i32(protobuf::Enum::value(&code)),
            };
            Status::new(code, status.message())
        }
        error if is_closed(&error) => not_found(format_args!("task {task}: its shim has ended")),
        error => unknown(format_args!("task {task}: {error}")),
    }
}

/// Whether a call failed because the shim at the other end is not there any more.
pub fn is_closed(error: &ttrpc::Error) -> bool {
    matches!(
        error,
        ttrpc::Error::RemoteClosed | ttrpc::Error::LocalClosed | ttrpc::Error::Socket(_)
    )
}

/// Whether the text is that of a server without the service or method that was called.
pub fn is_no_such_call(message: &str) -> bool {
    message.contains("service does not exist")
        || message.ends_with("is not supported")
        || message.contains("not implemented")
}
