//! What a container has of the kernel and of its bundle: descriptors, relays, runs in flight,
//! timers, its cgroup. It holds and closes; it decides nothing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::runc::RuncOptions;
use shim_common::cgroup::{Cgroup, LogTime};
use shim_common::stdio::{self, ChildEnds, ConsoleSocket, Relay, Request as StdioRequest};
use sys::mount::Mount;
use task_api::bundle::exec_pid_file;
use tokio::task::AbortHandle;

use super::prepare::Preparation;
use crate::container::{IoPaths, Step, Target, Timer};
use crate::runc::{Running, Runtime};
use crate::service::CreateRequest;

/// The environment of the shim, as the runtime gets it.
pub(super) type Environment = Rc<Vec<(OsString, OsString)>>;

/// A relay and the number under which its end is announced.
pub(super) struct NumberedRelay {
    pub(super) number: u64,
    pub(super) relay: Relay,
}

/// The stdio of a process about to be started.
pub(super) struct Ends {
    pub(super) child: ChildEnds,
    pub(super) console: Option<ConsoleSocket>,
}

/// What one container has.
pub(super) struct Host {
    pub(super) id: String,
    pub(super) namespace: String,
    pub(super) environment: Environment,
    pub(super) bundle: PathBuf,
    pub(super) options: RuncOptions,
    pub(super) runtime: Runtime,
    pub(super) checkpoint: String,
    pub(super) parent_checkpoint: String,
    mounts: Vec<Mount>,
    io: BTreeMap<Target, IoPaths>,
    pub(super) specs: BTreeMap<String, Vec<u8>>,
    pub(super) ends: BTreeMap<Target, Ends>,
    pub(super) relays: BTreeMap<Target, NumberedRelay>,
    pub(super) pidfds: BTreeMap<Target, OwnedFd>,
    pub(super) runs: BTreeMap<Step, Running>,
    timers: BTreeMap<Timer, AbortHandle>,
    pub(super) cgroup: Option<Arc<Cgroup>>,
    /// When the cgroup was taken up, before which it had no OOM.
    cgroup_since: LogTime,
    ooms: u64,
    /// What the watch has read, which may be the last that could be read.
    pub(super) watched_ooms: Rc<Cell<u64>>,
    oom_watch: Option<AbortHandle>,
}

impl Host {
    /// What a container to be created starts with: nothing of the kernel yet.
    pub(super) fn new(request: &CreateRequest, namespace: &str, environment: &Environment) -> Self {
        Self {
            id: request.id.clone(),
            namespace: namespace.to_owned(),
            environment: Rc::clone(environment),
            bundle: PathBuf::from(&request.bundle),
            runtime: Runtime::new(&request.options, namespace),
            options: request.options.clone(),
            checkpoint: request.checkpoint.clone(),
            parent_checkpoint: request.parent_checkpoint.clone(),
            mounts: request.mounts.clone(),
            io: BTreeMap::from([(Target::Init, request.io.clone())]),
            specs: BTreeMap::new(),
            ends: BTreeMap::new(),
            relays: BTreeMap::new(),
            pidfds: BTreeMap::new(),
            runs: BTreeMap::new(),
            timers: BTreeMap::new(),
            cgroup: None,
            cgroup_since: LogTime::now(),
            ooms: 0,
            watched_ooms: Rc::default(),
            oom_watch: None,
        }
    }

    /// The work of the helper that prepares the bundle.
    pub(super) fn preparation(&self) -> Preparation {
        Preparation {
            bundle: self.bundle.clone(),
            mounts: self.mounts.clone(),
            options: self.options.clone(),
            runtime: self.runtime.program.to_string_lossy().into_owned(),
        }
    }

    /// Where the rootfs is mounted.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// The mounts, for the event that reports them; nothing needs them after that.
    pub(super) fn take_mounts(&mut self) -> Vec<Mount> {
        std::mem::take(&mut self.mounts)
    }

    /// What the process is connected to, as it was asked for.
    pub(super) fn io(&self, target: &Target) -> IoPaths {
        self.io.get(target).cloned().unwrap_or_default()
    }

    /// Keeps what an exec needs when it is started.
    pub(super) fn keep_exec(&mut self, id: String, io: IoPaths, spec: Vec<u8>) {
        self.io.insert(Target::Exec(id.clone()), io);
        self.specs.insert(id, spec);
    }

    /// What the process is to be connected to.
    pub(super) fn stdio_request(&self, target: &Target) -> StdioRequest {
        let io = self.io(target);
        StdioRequest {
            stdin: io.stdin,
            stdout: io.stdout,
            stderr: io.stderr,
            terminal: io.terminal,
            uid: self.options.io_uid,
            gid: self.options.io_gid,
            container_id: self.id.clone(),
            namespace: self.namespace.clone(),
            runtime_dir: stdio::runtime_dir(&self.environment),
        }
    }

    /// Where the runtime writes the pid of a process.
    pub(super) fn pid_file(&self, target: &Target) -> PathBuf {
        match target {
            Target::Init => self.bundle.join(task_api::bundle::INIT_PID),
            Target::Exec(id) => self.bundle.join(exec_pid_file(id)),
        }
    }

    /// Takes up the cgroup of the container's first process.
    pub(super) fn load_cgroup(&mut self, pid: i32) {
        match Cgroup::of_process(pid) {
            Ok(cgroup) => self.cgroup = Some(Arc::new(cgroup)),
            // A process that is gone already has none; its exit is on the way.
            Err(error) => log::debug!("cgroup of container {}: {error}", self.id),
        }
    }

    /// Watches for OOM until the container is forgotten.
    pub(super) fn watch_oom(&mut self, task: AbortHandle) {
        if let Some(before) = self.oom_watch.replace(task) {
            before.abort();
        }
    }

    /// True when the kernel has killed for memory since this was last asked.
    pub(super) fn new_ooms(&mut self) -> bool {
        let read = self.cgroup.as_ref().map(|cgroup| cgroup.oom_kills());
        self.ooms_grew(read.and_then(Result::ok))
    }

    /// [`Host::new_ooms`] when a process is dead. systemd removes the cgroup as soon as it is empty,
    /// perhaps before we look: then what the watch has read counts, and what the kernel's log tells.
    /// A process that has ended well has not been killed, nor ended because another was.
    pub(super) fn new_ooms_of(&mut self, dead: Option<i32>, status: u32) -> bool {
        let read = self.cgroup.as_ref().map(|cgroup| match cgroup.oom_kills() {
            Err(error) if error.kind() == ErrorKind::NotFound && status != 0 => {
                cgroup.oom_kills_logged(self.cgroup_since, dead)
            }
            read => read,
        });
        self.ooms_grew(read.and_then(Result::ok))
    }

    /// Takes note of a count, if there is one beside that of the watch.
    fn ooms_grew(&mut self, read: Option<u64>) -> bool {
        let kills = read.unwrap_or(0).max(self.watched_ooms.get());
        let grown = kills > self.ooms;
        self.ooms = self.ooms.max(kills);
        grown
    }

    /// The process is dead: nobody can signal it any more, and its input ends.
    pub(super) fn process_exited(&mut self, target: &Target) {
        self.pidfds.remove(target);
        if let Some(numbered) = self.relays.get_mut(target) {
            numbered.relay.process_exited();
        }
    }

    /// Sends a signal to a process of ours; NotFound when it has ended.
    pub(super) fn signal(&self, target: &Target, signal: i32) -> std::io::Result<()> {
        match self.pidfds.get(target) {
            Some(pidfd) => sys::pidfd::send_signal(pidfd.as_fd(), signal),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Remembers a timer, so that it can be stopped.
    pub(super) fn arm(&mut self, timer: Timer, task: AbortHandle) {
        if let Some(before) = self.timers.insert(timer, task) {
            before.abort();
        }
    }

    /// Stops a timer.
    pub(super) fn disarm(&mut self, timer: &Timer) {
        if let Some(task) = self.timers.remove(timer) {
            task.abort();
        }
    }

    /// Forgets what a deleted process had; its relay, which may still deliver, is returned.
    pub(super) fn release(&mut self, target: &Target) -> Option<NumberedRelay> {
        self.ends.remove(target);
        self.pidfds.remove(target);
        self.io.remove(target);
        if let Target::Exec(id) = target {
            self.specs.remove(id);
            remove_file(&self.pid_file(target));
        }
        self.relays.remove(target)
    }

    /// One line for the dump that SIGUSR1 asks for.
    pub(super) fn describe(&self) -> String {
        let relays: Vec<String> = self
            .relays
            .iter()
            .map(|(target, numbered)| format!("{target:?}: {}", numbered.relay.describe()))
            .collect();
        format!(
            "  runs={:?} pidfds={:?} timers={:?} ooms={} relays=[{}]",
            self.runs.keys().collect::<Vec<_>>(),
            self.pidfds.keys().collect::<Vec<_>>(),
            self.timers.keys().collect::<Vec<_>>(),
            self.ooms,
            relays.join("; "),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for task in self.timers.values().chain(&self.oom_watch) {
            task.abort();
        }
    }
}

/// Removes a small file of the bundle. Unlink in a bundle, which lies on a tmpfs by default, does
/// not wait for a disk.
fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        log::warn!("remove {}: {error}", path.display());
    }
}
