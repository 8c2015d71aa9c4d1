//! What the daemon is told: one effective configuration, whatever version of the file it is from.
//!
//! A file goes this way: [`entries`] reads its keys with their lines, [`spelling`] gives them the
//! names of version 2, [`sources`] joins it with what it imports, [`keys`] says for each key where
//! its value goes, [`slot`] which values it may have, and [`write`](mod@write) writes the result.

mod apply;
mod duration;
mod entries;
mod globs;
mod keys;
mod problem;
mod runtimes;
mod slot;
mod sources;
mod spelling;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use problem::Problem;
pub use runtimes::{Runtime, Runtimes};
pub use write::migrate;

/// The largest message that clients may send or are sent, unless said otherwise, in bytes.
const MESSAGE_LIMIT: usize = 16 << 20;
/// How much of the disk unpacking leaves free, unless said otherwise, in bytes.
const UNPACK_RESERVE: usize = 64 << 20;
/// Where the file is, unless said otherwise.
pub const DEFAULT_FILE: &str = "/etc/containerd/config.toml";

/// What is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What must survive a reboot.
    pub root: PathBuf,
    /// What must not: bundles, sockets.
    pub state: PathBuf,
    /// The folder of temporary files, the daemon's own and its shims' (`TMPDIR`); empty for the
    /// system's.
    pub temp: PathBuf,
    /// The daemon's own score for the kernel's out-of-memory killer; 0 leaves it alone.
    pub oom_score: i32,
    /// The files that were imported, or are to be.
    pub imports: Vec<String>,
    /// Plugins that are not to be served, by their full names.
    pub disabled_plugins: Vec<String>,
    /// Plugins without which the daemon is not to start, by their full names.
    pub required_plugins: Vec<String>,
    /// The gRPC socket.
    pub address: PathBuf,
    /// Owner of the gRPC socket.
    pub uid: u32,
    /// Group of the gRPC socket.
    pub gid: u32,
    /// The largest request, in bytes.
    pub max_receive: usize,
    /// The largest answer, in bytes.
    pub max_send: usize,
    /// The ttrpc socket; empty for the gRPC socket's name with `.ttrpc` behind it. See
    /// [`Config::ttrpc_socket`].
    pub ttrpc_address: PathBuf,
    /// Owner of the ttrpc socket, where it has an address of its own.
    pub ttrpc_uid: u32,
    /// Group of the ttrpc socket, likewise.
    pub ttrpc_gid: u32,
    /// What is logged: one of containerd's names, or empty.
    pub log_level: String,
    /// How it is logged: `text` or `json`; empty for `text`.
    pub log_format: String,
    /// Where metrics are served over HTTP (`host:port`); empty for nowhere.
    pub metrics_address: String,
    /// Whether the metrics have histograms of how long calls took.
    pub grpc_histogram: bool,
    /// Whether containers are left out of the metrics.
    pub no_prometheus: bool,
    /// The cgroup that the daemon joins; empty for the one it is started in.
    pub cgroup: String,
    /// How long shims may take.
    pub timeouts: Timeouts,
    /// When what nothing refers to is removed.
    pub gc: Gc,
    /// Whether namespaces share what they have downloaded: `shared` or `isolated`.
    pub content_sharing_policy: String,
    /// The platforms whose tasks are run.
    pub platforms: Vec<String>,
    /// Whether each task has the threads of a core for itself.
    pub sched_core: bool,
    /// What makes layers, in the order in which they are tried.
    pub differs: Vec<String>,
    /// Folders of snapshotters, by their names; those that are not here are below the root.
    pub snapshotter_roots: BTreeMap<String, PathBuf>,
    /// Whether shims log more even where the daemon does not.
    pub shim_debug: bool,
    /// The OCI runtime of containers of `io.containerd.runtime.v1.linux` that name none.
    pub legacy_runtime: String,
    /// The folder that this runtime keeps its state in.
    pub legacy_root: String,
    /// How much of the disk unpacking a layer leaves free, in bytes.
    pub unpack_reserve: usize,
    /// The runtimes that the kubelet may name.
    pub cri: Runtimes,
}

/// How long shims may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To answer a daemon that has been started again.
    pub load: Duration,
    /// To end after the last task was deleted.
    pub shutdown: Duration,
    /// To clean up after a shim that died.
    pub cleanup: Duration,
}

/// When what nothing refers to is removed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gc {
    /// The share of time that may be spent on it.
    pub pause_threshold: f64,
    /// After how many deletions; 0 for never because of them.
    pub deletion_threshold: u32,
    /// After how many changes.
    pub mutation_threshold: u32,
    /// How long after what caused it.
    pub schedule_delay: Duration,
    /// How long after the daemon's start.
    pub startup_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/containerd".into(),
            state: "/run/containerd".into(),
            temp: PathBuf::new(),
            oom_score: 0,
            imports: Vec::new(),
            disabled_plugins: Vec::new(),
            required_plugins: Vec::new(),
            address: "/run/containerd/containerd.sock".into(),
            uid: 0,
            gid: 0,
            max_receive: MESSAGE_LIMIT,
            max_send: MESSAGE_LIMIT,
            ttrpc_address: PathBuf::new(),
            ttrpc_uid: 0,
            ttrpc_gid: 0,
            log_level: String::new(),
            log_format: String::new(),
            metrics_address: String::new(),
            grpc_histogram: false,
            no_prometheus: false,
            cgroup: String::new(),
            timeouts: Timeouts {
                // Shorter than containerd's 5 s: whoever asks for the task waits for it.
                load: Duration::from_secs(2),
                shutdown: Duration::from_secs(3),
                cleanup: Duration::from_secs(5),
            },
            gc: Gc {
                pause_threshold: 0.02,
                deletion_threshold: 0,
                mutation_threshold: 100,
                schedule_delay: Duration::ZERO,
                startup_delay: Duration::from_millis(100),
            },
            content_sharing_policy: "shared".to_owned(),
            platforms: vec![own_platform().to_owned()],
            sched_core: false,
            differs: vec!["walking".to_owned()],
            snapshotter_roots: BTreeMap::new(),
            shim_debug: false,
            legacy_runtime: String::new(),
            legacy_root: String::new(),
            cri: Runtimes::default(),
            unpack_reserve: UNPACK_RESERVE,
        }
    }
}

fn own_platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    }
}

impl Config {
    /// Everything below one folder, for a daemon that nobody has installed.
    pub fn below(base: &Path) -> Self {
        Self {
            root: base.join("root"),
            state: base.join("state"),
            address: base.join("wherryd.sock"),
            ..Self::default()
        }
    }

    /// Puts what `file` and the files that it imports say over what is here, and answers what is
    /// to be said about them.
    ///
    /// # Errors
    /// Everything for which the file is refused, and the warnings; nothing is changed then.
    pub fn read(&mut self, file: &Path) -> Result<Vec<Problem>, Vec<Problem>> {
        let sources = sources::read(file, true)?;
        let mut config = self.clone();
        let problems = apply::apply(&sources, &mut config);
        if problems.iter().any(|problem| problem.is_error) {
            return Err(problems);
        }
        let files = sources.files.iter().skip(1);
        config.imports = files.map(|path| path.display().to_string()).collect();
        *self = config;
        Ok(problems)
    }

    /// Where the ttrpc socket is, and its owner and group: as with containerd, beside the gRPC
    /// socket and with its owner unless it has an address of its own.
    pub fn ttrpc_socket(&self) -> (PathBuf, u32, u32) {
        if self.ttrpc_address.as_os_str().is_empty() {
            let mut path = self.address.clone().into_os_string();
            path.push(".ttrpc");
            return (path.into(), self.uid, self.gid);
        }
        (self.ttrpc_address.clone(), self.ttrpc_uid, self.ttrpc_gid)
    }

    /// The folder of the daemon's own records.
    pub fn own_folder(&self) -> PathBuf {
        self.root.join("io.wherry.metadata.v1")
    }

    /// Whether the plugin `kind` `id` (`io.containerd.grpc.v1`, `tasks`) is not to be served.
    pub fn disables(&self, kind: &str, id: &str) -> bool {
        let is_it = |name: &String| {
            name.strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix('.'))
                == Some(id)
        };
        self.disabled_plugins.iter().any(is_it)
    }

    /// What is in force, as a file of version 2, which every containerd from 1.3 on reads.
    pub fn dump(&self) -> String {
        write::dump(self)
    }
}
