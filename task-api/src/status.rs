//! Refusals: the status code and the text with which a Task call fails.
//!
//! Clients match texts as well as codes (Docker and CRI both do), so the rule that makes a text
//! is written once, here: what failed, then a colon and the name of the class. Refusals of the
//! state machines are the exception: they carry code `Unknown` and the bare text
//! (shim-contract section 2).

use std::fmt;

use containerd_shim_protos::ttrpc;
pub use containerd_shim_protos::ttrpc::Code;

/// Why a call failed, as the client will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// The whole text, class included.
    pub message: String,
}

impl Refusal {
    /// There is no such thing: `<what>: not found`. CRI and Docker take it from Kill and Delete
    /// as success.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::of(Code::NOT_FOUND, what, "not found")
    }

    /// The id is taken: `<what>: already exists`.
    pub fn already_exists(what: impl fmt::Display) -> Self {
        Self::of(Code::ALREADY_EXISTS, what, "already exists")
    }

    /// Not now: `<what>: failed precondition`.
    pub fn failed_precondition(what: impl fmt::Display) -> Self {
        Self::of(Code::FAILED_PRECONDITION, what, "failed precondition")
    }

    /// The request itself is wrong: `<what>: invalid argument`.
    pub fn invalid_argument(what: impl fmt::Display) -> Self {
        Self::of(Code::INVALID_ARGUMENT, what, "invalid argument")
    }

    /// No such call here: `<what>: not implemented`.
    pub fn unimplemented(what: impl fmt::Display) -> Self {
        Self::of(Code::UNIMPLEMENTED, what, "not implemented")
    }

    /// Try again: `<what>: unavailable`.
    pub fn unavailable(what: impl fmt::Display) -> Self {
        Self::of(Code::UNAVAILABLE, what, "unavailable")
    }

    /// Out of time: `<what>: context deadline exceeded`, Go's words for it.
    pub fn deadline_exceeded(what: impl fmt::Display) -> Self {
        Self::of(Code::DEADLINE_EXCEEDED, what, "context deadline exceeded")
    }

    /// A peer without the right to call: `<what>: permission denied`.
    pub fn permission_denied(what: impl fmt::Display) -> Self {
        Self::of(Code::PERMISSION_DENIED, what, "permission denied")
    }

    /// A fault of the shim: `<what>: internal`.
    pub fn internal(what: impl fmt::Display) -> Self {
        Self::of(Code::INTERNAL, what, "internal")
    }

    /// A failure of no class, and every refusal of a state machine: the text as it is.
    pub fn unknown(what: impl fmt::Display) -> Self {
        Self {
            code: Code::UNKNOWN,
            message: what.to_string(),
        }
    }

    /// The container of the request is not in this shim.
    pub fn no_container() -> Self {
        Self::not_found("container not created")
    }

    /// The exec of the request is not in its container.
    pub fn no_process(id: &str) -> Self {
        Self::not_found(format_args!("process does not exist {id}"))
    }

    fn of(code: Code, what: impl fmt::Display, class: &str) -> Self {
        Self {
            code,
            message: format!("{what}: {class}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for ttrpc::Error {
    fn from(refusal: Refusal) -> Self {
        Self::RpcStatus(ttrpc::get_status(refusal.code, refusal.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_ones_clients_match() {
        let golden = [
            (
                Refusal::no_container(),
                Code::NOT_FOUND,
                "container not created: not found",
            ),
            (
                Refusal::no_process("e1"),
                Code::NOT_FOUND,
                "process does not exist e1: not found",
            ),
            (
                Refusal::already_exists("id e1"),
                Code::ALREADY_EXISTS,
                "id e1: already exists",
            ),
            (
                Refusal::unknown("cannot start a running process"),
                Code::UNKNOWN,
                "cannot start a running process",
            ),
        ];
        for (refusal, code, text) in golden {
            assert_eq!((refusal.code, refusal.to_string().as_str()), (code, text));
            let ttrpc::Error::RpcStatus(status) = refusal.into() else {
                panic!("not a status")
            };
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
}
