//! The two shims differ in a handful of answers, collected here (shim-contract 1.9).

/// Which shim this binary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// `containerd-shim-runc-v1`: one container per shim.
    V1,
    /// `containerd-shim-runc-v2`: one shim for a group of containers, usually a pod.
    V2,
}

impl Flavor {
    /// The runtime's name as containerd knows it; failures open with it.
    pub fn runtime_name(self) -> &'static str {
        match self {
            Self::V1 => "io.containerd.runc.v1",
            Self::V2 => "io.containerd.runc.v2",
        }
    }

    /// Whether the shim holds a single container and groups nothing.
    pub fn one_container(self) -> bool {
        self == Self::V1
    }

    /// Whether Shutdown ends the shim even while it has containers.
    pub fn shutdown_is_unconditional(self) -> bool {
        self == Self::V1
    }
}
