//! What one bed has on this machine, by names of its own: its processes, states, mounts, cgroups, sockets
//! and its folder; and the cleaning up, which also happens when the runner of the tests gives up on one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use nix::mount::{MntFlags, umount2};
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use crate::{host, stdio, target, wait};

/// Where shims make their sockets.
const SOCKETS: &str = "/run/containerd/s";

/// Where the runtime keeps states when nobody says where.
const DEFAULT_STATES: &str = "/run/containerd/runc";

/// The beds of this process that are not cleaned up yet.
static ALL: Mutex<Vec<Weak<Traces>>> = Mutex::new(Vec::new());

/// The names under which a bed's things are found.
#[derive(Debug)]
pub(crate) struct Traces {
    /// The bed's folder.
    pub(crate) dir: PathBuf,
    /// The namespace of its containers, which also names the parent of their cgroups.
    pub(crate) namespace: String,
    /// Its containers and groups.
    ids: Mutex<Vec<String>>,
}

impl Traces {
    /// Those of a new bed. From now on they are cleaned up when this process is told to end: nextest sends
    /// SIGTERM to a test that takes too long, and SIGKILL ten seconds later.
    pub(crate) fn new(dir: &Path, namespace: String) -> Arc<Self> {
        static WATCH: Once = Once::new();
        WATCH.call_once(clean_up_on_sigterm);
        let traces = Arc::new(Self {
            dir: dir.to_owned(),
            namespace,
            ids: Mutex::default(),
        });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|traces| traces.strong_count() > 0);
        all.push(Arc::downgrade(&traces));
        traces
    }

    /// Takes note of a container or a group.
    pub(crate) fn note(&self, id: &str) {
        self.ids.lock().unwrap().push(id.to_owned());
    }

    /// The parent of the containers' cgroups, as `cgroupsPath` has it.
    pub(crate) fn cgroup(&self) -> String {
        format!("/{}", self.namespace)
    }

    /// The value of `Options.root`.
    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.dir.join("runc")
    }

    /// The address that a shim of this bed must listen on, by its group's id.
    pub(crate) fn socket_of(&self, group: &str) -> PathBuf {
        let name = self
            .dir
            .join("containerd.sock")
            .join(&self.namespace)
            .join(group);
        let digest = Sha256::digest(name.as_os_str().as_encoded_bytes());
        Path::new(SOCKETS).join(stdio::hex(&digest))
    }

    /// The sockets of this bed's ids that exist.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let ids = self.ids.lock().unwrap();
        let mut found: Vec<_> = ids
            .iter()
            .map(|id| self.socket_of(id))
            .filter(|path| path.exists())
            .collect();
        found.dedup();
        found
    }

    /// The states that the runtime keeps for this bed's containers.
    pub(crate) fn runtime_states(&self) -> Vec<PathBuf> {
        let own = self.runtime_root().join(&self.namespace);
        let default = Path::new(DEFAULT_STATES).join(&self.namespace);
        [own, default]
            .iter()
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flat_map(|entries| entries.flatten().map(|e| e.path()))
            // crun keeps this one beside the states of its containers, for all of them.
            .filter(|path| !path.ends_with(".empty-directory"))
            .collect()
    }

    /// The processes of this bed: shims and runtimes by argument, containers by cgroup.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let dir = self.dir.display().to_string();
        let mut found = host::cgroup_members(&self.cgroup());
        for pid in host::pids() {
            if pid != own
                && host::cmdline(pid)
                    .iter()
                    .any(|arg| *arg == self.namespace || arg.starts_with(&dir))
                && host::alive(pid)
            {
                found.push(pid);
            }
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| host::alive(*pid));
        found
    }

    /// Kills and removes whatever is left.
    pub(crate) fn clean_up(&self) {
        // Frozen processes do not die: thaw first.
        for dir in host::cgroups(&self.cgroup()) {
            let _ = fs::write(dir.join("freezer.state"), "THAWED");
            let _ = fs::write(dir.join("cgroup.freeze"), "0");
        }
        wait::holds(wait::SHORT, || {
            let left = self.processes();
            left.iter().for_each(|pid| host::kill_hard(*pid));
            left.is_empty()
        });
        for state in self.runtime_states() {
            let (Some(root), Some(id)) = (state.parent(), state.file_name()) else {
                continue;
            };
            let _ = Command::new(target::runtime_path())
                .arg("--root")
                .arg(root)
                .args(["delete", "--force"])
                .arg(id)
                .output();
        }
        for mount in host::mounts_below(&self.dir).iter().rev() {
            let _ = umount2(mount, MntFlags::MNT_DETACH);
        }
        for cgroup in host::cgroups(&self.cgroup()).iter().rev() {
            let _ = fs::remove_dir(cgroup);
        }
        for socket in self.sockets() {
            let _ = fs::remove_file(socket);
        }
        let _ = fs::remove_dir_all(Path::new(DEFAULT_STATES).join(&self.namespace));
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Has a thread wait for SIGTERM, clean up and end this process as the signal would have.
#[expect(clippy::exit, reason = "the test that runs may never come to its end")]
fn clean_up_on_sigterm() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime that waits for SIGTERM");
        runtime.block_on(async {
            let mut told = signal(SignalKind::terminate()).expect("watch for SIGTERM");
            told.recv().await;
        });
        let all = std::mem::take(&mut *ALL.lock().unwrap_or_else(PoisonError::into_inner));
        for traces in all.iter().filter_map(Weak::upgrade) {
            traces.clean_up();
        }
        std::process::exit(128 + libc::SIGTERM);
    });
}
