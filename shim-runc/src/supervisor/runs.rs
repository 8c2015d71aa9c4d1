//! Runs of the runtime: started here, from the main thread, and read here when the reaper says
//! that they are over. Between the two the loop goes on.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use shim_common::helper;
use shim_common::stdio::Master;
use sys::spawn::Stdio;
use task_api::status::Refusal;

use super::host::Host;
use super::ledger::Owner;
use super::{Key, Message, Supervisor, exit_of};
use crate::container::{Input, Run, RunFailure, Step, Target};
use crate::runc::{
    CheckpointArgs, ContainerStdio, CreateArgs, ErrorKind, ExecArgs, Output, RestoreArgs, Running,
    RuntimeError, pid_file, ps,
};

/// criu's work folder in the bundle, unless the client names another.
const CRIU_WORK: &str = "criu-work";

/// How long a terminal may take to arrive after the runtime said that it is done.
const CONSOLE_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

impl Supervisor {
    pub(super) fn start_run(&mut self, key: Key, run: &Run) {
        let Some(entry) = self.containers.get_mut(&key) else {
            return;
        };
        let step = run.step();
        match entry.host.spawn(run) {
            Ok(pid) => {
                log::debug!("container {}: {step:?} is process {pid}", entry.rules.id());
                self.ledger.own(pid, Owner::Run(key, step));
            }
            Err(failure) => self.input(key, Input::Ran(step, Err(failure))),
        }
    }

    /// A run of the runtime has ended with this status.
    pub(super) fn run_ended(&mut self, key: Key, step: Step, status: u32) {
        let Some(host) = self.containers.get_mut(&key).map(|entry| &mut entry.host) else {
            return self.ledger.named(key, &step);
        };
        let Some(running) = host.runs.remove(&step) else {
            return self.ledger.named(key, &step);
        };
        log::debug!("container {}: {step:?} ended with status {status}", host.id);
        match (running.outcome(status), process_of(&step)) {
            (Ok(_), Some(target)) => self.take_up(key, step, target),
            (outcome, None) if step == Step::Checkpoint => self.checkpoint_ran(key, outcome),
            (Ok(output), None) => match step {
                Step::Ps(call) => self.ps_answer(key, call, &output),
                step => self.input(key, Input::Ran(step, Ok(None))),
            },
            (Err(error), process) => {
                // 128 + n is death by signal n. A pid file tells that there was a process by then.
                let left = process.is_some_and(|target| host.kill_what_was_started(&target));
                let failure = failure(&error, status > 128 || left);
                self.input(key, Input::Ran(step.clone(), Err(failure)));
                self.settle_inbox();
                self.ledger.named(key, &step);
            }
        }
    }

    /// criu is done: its work folder goes, and what it said about a failure stays in the bundle,
    /// where the error points to.
    fn checkpoint_ran(&mut self, key: Key, outcome: Result<Output, RuntimeError>) {
        let Some(entry) = self.containers.get(&key) else {
            return;
        };
        let work = entry.host.bundle.join(CRIU_WORK);
        let log = entry.host.bundle.join(task_api::bundle::CRIU_DUMP_LOG);
        let result = match outcome {
            Ok(_) => Ok(None),
            Err(error) => Err(failure(&error.with_criu_log(&log), false)),
        };
        let failed = result.is_err();
        self.in_helper(
            key,
            move || {
                if failed {
                    // A criu that never started has written none.
                    let _ = std::fs::copy(work.join("dump.log"), &log);
                }
                // It is not there when the client named another.
                let _ = std::fs::remove_dir_all(&work);
            },
            move |_| Input::Ran(Step::Checkpoint, result),
        );
    }

    /// A process was started. Its terminal, if it has one, lies in the console socket's queue
    /// since before the runtime ended: take it over first.
    fn take_up(&mut self, key: Key, step: Step, target: Target) {
        let ends = self
            .containers
            .get_mut(&key)
            .and_then(|entry| entry.host.ends.remove(&target));
        let Some(console) = ends.and_then(|ends| ends.console) else {
            return self.process_started(key, step, target, Ok(()));
        };
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let received = helper::contain(console.receive());
            let result = match tokio::time::timeout(CONSOLE_LIMIT, received).await {
                Ok(Ok(result)) => result.map_err(|error| error.to_string()),
                Ok(Err(panic)) => Err(panic.to_string()),
                Err(_) => Err("the runtime handed over no terminal".to_owned()),
            };
            let _ = sender.send(Message::Console(key, step, target, result));
        });
    }

    /// The terminal has come, or will not.
    pub(super) fn console_received(
        &mut self,
        key: Key,
        step: Step,
        target: Target,
        result: Result<Master, String>,
    ) {
        let relay = self
            .containers
            .get_mut(&key)
            .and_then(|entry| entry.host.relays.get_mut(&target));
        let result = match (result, relay) {
            (Ok(master), Some(numbered)) => numbered
                .relay
                .attach(master)
                .map_err(|error| error.to_string()),
            (result, _) => result.map(drop),
        };
        self.process_started(key, step, target, result);
    }

    /// The process runs and its terminal is there, or will never be.
    pub(super) fn process_started(
        &mut self,
        key: Key,
        step: Step,
        target: Target,
        console: Result<(), String>,
    ) {
        let Some(host) = self.containers.get_mut(&key).map(|entry| &mut entry.host) else {
            return self.ledger.named(key, &step);
        };
        let path = host.pid_file(&target);
        let pid = match pid_file::read(&path) {
            Ok(pid) => pid,
            Err(error) => {
                let refusal = Refusal::unknown(format!("read the pid of {target:?}: {error}"));
                let failure = RunFailure {
                    refusal,
                    container_gone: false,
                    unclean: true,
                };
                self.input(key, Input::Ran(step.clone(), Err(failure)));
                return self.ledger.named(key, &step);
            }
        };
        let lives = sys::wait::is_child(pid);
        // It has come and gone, and whoever has its pid now is a stranger. (If it lives, the early
        // exit was of an older process whose pid it got.)
        let gone = self.ledger.take_early(pid).filter(|_| !lives);
        let pidfd = match gone {
            None => sys::pidfd::open(pid)
                .inspect_err(|error| log::warn!("hold {target:?}, pid {pid}: {error}"))
                .ok(),
            Some(_) => None,
        };
        if let Err(error) = console {
            // Nobody would ever see what it does.
            if let Some(pidfd) = &pidfd {
                let _ = sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            let refusal = Refusal::unknown(format!("terminal of {target:?}: {error}"));
            let failure = RunFailure {
                refusal,
                container_gone: false,
                unclean: true,
            };
            self.input(key, Input::Ran(step.clone(), Err(failure)));
            return self.ledger.named(key, &step);
        }
        if target == Target::Init && gone.is_none() {
            host.load_cgroup(pid);
        }
        if let Some(pidfd) = pidfd {
            host.pidfds.insert(target.clone(), pidfd);
        }
        self.input(key, Input::Ran(step.clone(), Ok(Some(pid))));
        // The start is told before the exit, whichever the kernel reported first.
        self.settle_inbox();
        match gone {
            Some(notice) => self.process_exited(key, target, Some(notice.pid), exit_of(&notice)),
            None if lives => self.ledger.own(pid, Owner::Process(key, target)),
            None => self.watch_from_outside(key, target),
        }
        self.ledger.named(key, &step);
    }

    /// A process that is not our child, as some runtimes have it: its pidfd tells when it ends,
    /// and nothing tells how. One that cannot even be watched has ended.
    fn watch_from_outside(&mut self, key: Key, target: Target) {
        let pidfd = self
            .containers
            .get(&key)
            .and_then(|entry| entry.host.pidfds.get(&target))
            .and_then(|pidfd| pidfd.try_clone().ok());
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            if let Some(pidfd) = pidfd
                && let Err(error) = shim_common::watch::ended(pidfd).await
            {
                log::warn!("watch {target:?}: {error}");
            }
            let _ = sender.send(Message::Vanished(key, target));
        });
    }

    fn ps_answer(&mut self, key: Key, call: u64, output: &[u8]) {
        let step = Step::Ps(call);
        match ps::parse(output) {
            Ok(pids) => {
                self.input(key, Input::Ran(step, Ok(None)));
                self.answer_pids(key, call, pids);
            }
            Err(error) => {
                let refusal = Refusal::unknown(error.to_string());
                let failure = RunFailure {
                    refusal,
                    container_gone: false,
                    unclean: false,
                };
                self.input(key, Input::Ran(step, Err(failure)));
            }
        }
    }

    /// Kills the process group of a run: the runtime and what it started on the way.
    pub(super) fn kill_run(&mut self, key: Key, step: &Step) {
        let Some(entry) = self.containers.get(&key) else {
            return;
        };
        let Some(running) = entry.host.runs.get(step) else {
            return;
        };
        log::warn!(
            "killing the runtime's {step:?} for container {}",
            entry.host.id
        );
        kill_group(running);
    }
}

/// Kills the process group of a run that nobody has collected yet.
pub(super) fn kill_group(running: &Running) {
    if let Err(error) = sys::pidfd::kill_group(running.child.pid, libc::SIGKILL) {
        log::debug!("kill group {}: {error}", running.child.pid);
    }
}

/// Whose process a run starts.
fn process_of(step: &Step) -> Option<Target> {
    match step {
        Step::Create | Step::Restore => Some(Target::Init),
        Step::Exec(id) => Some(Target::Exec(id.clone())),
        _ => None,
    }
}

fn failure(error: &RuntimeError, killed: bool) -> RunFailure {
    let refusal = if error.not_found {
        Refusal::not_found(&error.message)
    } else {
        Refusal::unknown(&error.message)
    };
    let container_gone = error.kind == ErrorKind::NoSuchContainer;
    RunFailure {
        refusal,
        container_gone,
        unclean: killed,
    }
}

impl Host {
    /// Starts the runtime for `run`; its pid comes back, its outcome with its exit.
    fn spawn(&mut self, run: &Run) -> Result<i32, RunFailure> {
        let step = run.step();
        let unspawned = |refusal| RunFailure {
            refusal,
            container_gone: false,
            unclean: true,
        };
        let call = self.call(run).map_err(|error| {
            unspawned(Refusal::unknown(format!(
                "prepare the runtime's {step:?}: {error}"
            )))
        })?;
        let stdio = match process_of(&step) {
            Some(target) => {
                pid_file::remove(&self.pid_file(&target)).map_err(|error| {
                    unspawned(Refusal::unknown(format!("remove an old pid file: {error}")))
                })?;
                self.child_stdio(&target)
            }
            None => ContainerStdio::Collected,
        };
        let running = call
            .start(&self.environment, &self.bundle, stdio)
            .map_err(|error| RunFailure {
                unclean: false,
                ..failure(&error, false)
            })?;
        let pid = running.child.pid;
        if let Run::Exec(id) = run {
            // The runtime has a copy of its own, and an exec is started once.
            self.specs.remove(id);
        }
        self.runs.insert(step, running);
        Ok(pid)
    }

    /// A runtime that failed after it had started the process: the process is killed, since
    /// nobody will ever hear of it. True if there was one.
    fn kill_what_was_started(&self, target: &Target) -> bool {
        let Ok(pid) = pid_file::read(&self.pid_file(target)) else {
            return false;
        };
        let Ok(pidfd) = sys::pidfd::open(pid) else {
            return true;
        };
        if sys::wait::is_child(pid)
            && let Err(error) = sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL)
        {
            log::warn!("kill {pid}, which a failed run left behind: {error}");
        }
        true
    }

    /// The process's ends of its streams; the terminal's process gets none from us.
    fn child_stdio(&mut self, target: &Target) -> ContainerStdio {
        let Some(ends) = self.ends.get_mut(target) else {
            return ContainerStdio::Collected;
        };
        if ends.console.is_some() {
            return ContainerStdio::Collected;
        }
        let child = std::mem::take(&mut ends.child);
        let fd = |end: Stdio| match end {
            Stdio::Fd(fd) => Some(fd),
            Stdio::Null => None,
        };
        ContainerStdio::Process {
            stdin: fd(child.stdin),
            stdout: fd(child.stdout),
            stderr: fd(child.stderr),
        }
    }

    fn call(&self, run: &Run) -> std::io::Result<crate::runc::Call> {
        let id = self.id.as_str();
        let console = |target: &Target| {
            let ends = self.ends.get(target);
            ends.and_then(|ends| ends.console.as_ref())
                .map(|console| console.path().to_owned())
        };
        Ok(match run {
            Run::Create => self.runtime.create(&CreateArgs {
                id,
                bundle: &self.bundle,
                pid_file: &self.pid_file(&Target::Init),
                console_socket: console(&Target::Init).as_deref(),
                no_pivot_root: self.options.no_pivot_root,
                no_new_keyring: self.options.no_new_keyring,
            }),
            Run::Restore => self.runtime.restore(&RestoreArgs {
                id,
                bundle: &self.bundle,
                image_path: Path::new(&self.checkpoint),
                work_path: &self.criu_work_path(&self.options.criu_work_path),
                parent_path: some_path(&self.parent_checkpoint),
                pid_file: &self.pid_file(&Target::Init),
                console_socket: console(&Target::Init).as_deref(),
                no_pivot_root: self.options.no_pivot_root,
            }),
            Run::Exec(exec) => self.runtime.exec(&ExecArgs {
                id,
                process: self.specs.get(exec).map_or(&[], Vec::as_slice),
                pid_file: &self.pid_file(&Target::Exec(exec.clone())),
                console_socket: console(&Target::Exec(exec.clone())).as_deref(),
            })?,
            Run::Start => self.runtime.start(id),
            Run::Pause => self.runtime.pause(id),
            Run::Resume | Run::Thaw => self.runtime.resume(id),
            Run::Kill { signal, all, .. } => {
                self.runtime
                    .kill(id, u32::try_from(*signal).unwrap_or_default(), *all)
            }
            Run::KillRest => self.runtime.kill(id, 9, true),
            Run::Update(resources) => self.runtime.update(id, resources)?,
            Run::Checkpoint(request) => self.runtime.checkpoint(&CheckpointArgs {
                id,
                image_path: Path::new(&request.path),
                work_path: &self.criu_work_path(&request.options.work_path),
                parent_path: None,
                leave_running: !request.options.exit,
                open_tcp: request.options.open_tcp,
                external_unix_sockets: request.options.external_unix_sockets,
                terminal: request.options.terminal,
                file_locks: request.options.file_locks,
                empty_namespaces: &request.options.empty_namespaces,
            }),
            Run::Delete { force } => self.runtime.delete(id, *force),
            Run::Destroy => self.runtime.delete(id, true),
            Run::Ps { .. } => self.runtime.ps(id),
        })
    }

    /// criu's work folder: the one asked for, or one in the bundle.
    fn criu_work_path(&self, asked: &str) -> PathBuf {
        some_path(asked).map_or_else(|| self.bundle.join(CRIU_WORK), Path::to_owned)
    }
}

fn some_path(path: &str) -> Option<&Path> {
    Some(path).filter(|path| !path.is_empty()).map(Path::new)
}
