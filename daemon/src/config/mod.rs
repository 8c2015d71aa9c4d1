//! What the daemon is told: one effective configuration, whatever version of the file it is from.

use std::path::PathBuf;

/// The largest message that clients may send or are sent, unless said otherwise.
const MESSAGE_LIMIT: usize = 16 << 20;

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What must survive a reboot.
    pub root: PathBuf,
    /// What must not: bundles, sockets.
    pub state: PathBuf,
    /// The daemon's own score for the kernel's out-of-memory killer; 0 leaves it alone.
    pub oom_score: i32,
    /// The gRPC socket.
    pub address: PathBuf,
    /// Owner of both sockets.
    pub uid: u32,
    /// Group of both sockets.
    pub gid: u32,
    /// The largest request, in bytes.
    pub max_receive: usize,
    /// The largest answer, in bytes.
    pub max_send: usize,
    /// What is logged: one of containerd's names.
    pub log_level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/containerd".into(),
            state: "/run/containerd".into(),
            oom_score: 0,
            address: "/run/containerd/containerd.sock".into(),
            uid: 0,
            gid: 0,
            max_receive: MESSAGE_LIMIT,
            max_send: MESSAGE_LIMIT,
            log_level: String::new(),
        }
    }
}
