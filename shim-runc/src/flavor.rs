//! What tells the two shims apart: `containerd-shim-runc-v1` and `-v2` are one program with this
//! value in it (shim-contract section 1.9).

use shim_common::socket::Existing;

/// Which of the two shims this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// `io.containerd.runc.v1`: one container per shim.
    V1,
    /// `io.containerd.runc.v2`: one shim per group of containers.
    V2,
}

impl Flavor {
    /// The runtime's name, in front of error messages and in the log.
    pub fn runtime_name(self) -> &'static str {
        match self {
            Self::V1 => "io.containerd.runc.v1",
            Self::V2 => "io.containerd.runc.v2",
        }
    }

    /// Whether containers with the same group annotation share a shim.
    pub fn groups(self) -> bool {
        self == Self::V2
    }

    /// What `start` does with a socket that exists already.
    pub fn existing_socket(self) -> Existing {
        match self {
            Self::V1 => Existing::Remove,
            Self::V2 => Existing::Probe,
        }
    }

    /// Whether `start` leaves the shim's pid in the bundle.
    pub fn writes_shim_pid(self) -> bool {
        self == Self::V1
    }

    /// Whether Shutdown ends the shim even while it has containers.
    pub fn shutdown_is_unconditional(self) -> bool {
        self == Self::V1
    }

    /// `GOMAXPROCS` of the served process, which the runtimes written in Go inherit from it.
    pub fn gomaxprocs(self) -> &'static str {
        match self {
            Self::V1 => "2",
            Self::V2 => "4",
        }
    }
}
