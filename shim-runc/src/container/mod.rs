//! The pure rules of one container: an input goes in, effects come out, nothing is done here.
//!
//! The supervisor owns a [`Container`], feeds it every [`Input`] that concerns it, in the order
//! in which they happened, and carries out the [`Effect`]s in the order in which they come out.
//! One lifecycle operation on init is in flight at a time, others wait in line; execs start in
//! parallel; questions (State, Wait, Connect) are answered at once (DESIGN rules 1, 2 and 6).
//!
//! `create.rs` is the way to a created container and back, `init.rs` the lifecycle operations on
//! init, `exec.rs` the exec processes, `exit.rs` exits and what they hold back.

mod broken;
mod create;
mod exec;
mod exit;
mod init;
mod query;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use task_api::status::Refusal;

pub use crate::process::Exit;
use crate::process::{ExecState, InitState};
use crate::runc::options::CheckpointOptions;

/// Names one call of a client: the reply goes to it.
pub type CallId = u64;

/// A process of the container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The container's first process.
    Init,
    /// The exec process of this id.
    Exec(String),
}

impl Target {
    /// From the exec id of a request, where empty means init.
    pub fn from_exec_id(exec_id: &str) -> Self {
        if exec_id.is_empty() {
            Self::Init
        } else {
            Self::Exec(exec_id.to_owned())
        }
    }
}

/// What a process is connected to, as the client asked; echoed by State.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoPaths {
    /// Path or URI of stdin.
    pub stdin: String,
    /// Path or URI of stdout.
    pub stdout: String,
    /// Path or URI of stderr.
    pub stderr: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// A client's command on an existing container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start init or an exec.
    Start(Target),
    /// Where the process stands.
    State(Target),
    /// Register an exec process.
    Exec {
        /// The id of the new exec.
        id: String,
        /// What it will be connected to.
        io: IoPaths,
        /// The process spec, JSON as it came.
        spec: Vec<u8>,
    },
    /// Delete an exec or the whole container.
    Delete(Target),
    /// Send a signal.
    Kill {
        /// To whom.
        target: Target,
        /// Signal number, real-time signals included.
        signal: i32,
        /// To every process of the container.
        all: bool,
    },
    /// Freeze the container.
    Pause,
    /// Thaw the container.
    Resume,
    /// Change resource limits; the JSON goes to the runtime as it came.
    Update(Vec<u8>),
    /// Dump the container with criu.
    Checkpoint(CheckpointCommand),
    /// The processes of the container.
    Pids,
    /// Cgroup metrics.
    Stats,
    /// Close the shim's end of stdin.
    CloseIo(Target),
    /// Resize the terminal.
    Resize {
        /// Whose terminal.
        target: Target,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Tell when the process has ended.
    Wait(Target),
    /// The pid of the task.
    Connect,
}

/// What Checkpoint asks for; options as in `containerd.runc.v1.CheckpointOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointCommand {
    /// Where the images go.
    pub path: String,
    /// How to dump.
    pub options: CheckpointOptions,
}

/// A run of the runtime that the container wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// `create`
    Create,
    /// `start`
    Start,
    /// `restore` from the checkpoint that Create named.
    Restore,
    /// `pause`
    Pause,
    /// `resume` that a client asked for.
    Resume,
    /// `resume` of a container whose init died while frozen, so that the rest can die too.
    Thaw,
    /// `kill`
    Kill {
        /// The client that asked.
        call: CallId,
        /// Signal number.
        signal: i32,
        /// With `--all`.
        all: bool,
    },
    /// `kill --all` with SIGKILL after init's death in a shared PID namespace.
    KillRest,
    /// `update` with these resources.
    Update(Vec<u8>),
    /// `checkpoint`
    Checkpoint(CheckpointCommand),
    /// `delete`, with `--force` when rolling back.
    Delete {
        /// Kill what still runs.
        force: bool,
    },
    /// `delete --force` of a broken container, whatever else is in flight.
    Destroy,
    /// `exec` of this id.
    Exec(String),
    /// `ps`, where the pids cannot be read from the cgroup.
    Ps {
        /// The client that asked.
        call: CallId,
    },
}

impl Run {
    /// The name under which the outcome of this run comes back.
    pub fn step(&self) -> Step {
        match self {
            Self::Create => Step::Create,
            Self::Start => Step::Start,
            Self::Restore => Step::Restore,
            Self::Pause => Step::Pause,
            Self::Resume => Step::Resume,
            Self::Thaw => Step::Thaw,
            Self::Kill { call, .. } => Step::Kill(*call),
            Self::KillRest => Step::KillRest,
            Self::Update(_) => Step::Update,
            Self::Checkpoint(_) => Step::Checkpoint,
            Self::Delete { .. } => Step::Delete,
            Self::Destroy => Step::Destroy,
            Self::Exec(id) => Step::Exec(id.clone()),
            Self::Ps { call } => Step::Ps(*call),
        }
    }
}

/// Names a run of the runtime while it is in flight; unique within its container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the `Run` of the same name")]
pub enum Step {
    Create,
    Start,
    Restore,
    Pause,
    Resume,
    Thaw,
    Kill(CallId),
    KillRest,
    Update,
    Checkpoint,
    Delete,
    Destroy,
    Exec(String),
    Ps(CallId),
}

/// How a run of the runtime ended badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFailure {
    /// What the client is told.
    pub refusal: Refusal,
    /// The runtime does not know the container (any more).
    pub container_gone: bool,
    /// The runtime did not end by itself (it was killed, or could not even be started), so that
    /// it cannot have cleaned up behind itself.
    pub unclean: bool,
}

/// What the container's bundle said, learnt while preparing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The spec asks for a new PID namespace: init's death ends every process in it.
    pub private_pid_namespace: bool,
    /// The runtime is known to leave the container's own process as pid, so that signals and
    /// pids may be taken from the kernel (DESIGN rule 7).
    pub runtime_is_known: bool,
    /// Rootfs mounts were asked for, so there is something to unmount.
    pub mounted: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A client's command.
    Command(CallId, Command),
    /// The client of this call has gone; nobody waits for its answer.
    CallGone(CallId),
    /// The bundle is prepared: files written, rootfs mounted. On failure all is undone already.
    Prepared(Result<Facts, Refusal>),
    /// The stdio of a process about to be started is open, or cannot be opened.
    StdioOpened(Target, Result<(), Refusal>),
    /// A run of the runtime is over. Create, Restore and Exec bring the pid of their process.
    Ran(Step, Result<Option<i32>, RunFailure>),
    /// A process that we know was reaped.
    Exited(Target, Exit),
    /// The kernel's OOM killer was at work in the container.
    Oom,
    /// All output of the process is delivered, or cannot be delivered any more.
    Drained(Target),
    /// The rootfs is unmounted, or why not.
    Unmounted(Result<(), String>),
    /// A timer that was armed has run out.
    Timer(Timer),
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// Init is dead: runs of the runtime still in flight are killed now.
    StopRuns,
    /// Init is dead: its exit is published now whatever still holds it.
    PublishAnyway,
    /// A Delete has waited long enough for output to drain.
    Drain(Target),
    /// A Delete of a created container has waited long enough for init's exit.
    AwaitExit,
}

/// What the supervisor is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer the client.
    Reply(CallId, Result<Reply, Refusal>),
    /// Queue an event.
    Publish(Event),
    /// Write the bundle files and mount the rootfs in a helper.
    Prepare,
    /// Keep what a registered exec will need when it is started.
    KeepExec {
        /// Its id.
        id: String,
        /// What it will be connected to.
        io: IoPaths,
        /// Its process spec.
        spec: Vec<u8>,
    },
    /// Open the stdio of this process.
    OpenStdio(Target),
    /// Spawn the runtime.
    Run(Run),
    /// Kill the process group of a run in flight; its end still comes as `Ran`.
    KillRun(Step),
    /// Signal the process through its pidfd and answer the call by the result.
    Signal {
        /// Who is answered.
        call: CallId,
        /// Who is signalled.
        target: Target,
        /// Signal number.
        signal: i32,
    },
    /// Read the pids from the cgroup in a helper and answer, with these execs named.
    ReadPids(CallId),
    /// Read the metrics in a helper and answer.
    ReadStats(CallId),
    /// Close the shim's end of stdin.
    CloseStdin(Target),
    /// Resize the terminal and answer.
    Resize {
        /// Who is answered.
        call: CallId,
        /// Whose terminal.
        target: Target,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Begin to watch for OOM: the container's pid is known.
    WatchOom,
    /// Unmount the rootfs in a helper.
    Unmount,
    /// Start a timer.
    Arm(Timer),
    /// Stop a timer; one that is not armed is no matter.
    Disarm(Timer),
    /// The process is deleted: forget its files, and end its relay once that has drained.
    Release(Target),
    /// The container is over: drop it and keep this answer for a late Delete, if there is one.
    Forget(Option<(i32, Exit)>),
    /// Say something in the log.
    Log(String),
}

/// Events in the container's life, in the words of shim-contract section 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// /tasks/create
    Create {
        /// Pid of init; 0 for a checkpoint.
        pid: i32,
    },
    /// /tasks/start
    Start {
        /// Pid of init.
        pid: i32,
    },
    /// /tasks/exec-added
    ExecAdded {
        /// Id of the exec.
        id: String,
    },
    /// /tasks/exec-started
    ExecStarted {
        /// Id of the exec.
        id: String,
        /// Its pid.
        pid: i32,
    },
    /// /tasks/exit
    Exit {
        /// Whose exit.
        target: Target,
        /// The pid it had.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
    /// /tasks/delete, of init only.
    Delete {
        /// The pid it had.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
    /// /tasks/paused
    Paused,
    /// /tasks/resumed
    Resumed,
    /// /tasks/oom
    Oom,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Empty,
    /// The pid of the process that was created or started.
    Pid(i32),
    /// The task's pid, for Connect.
    Connect {
        /// Pid of init; 0 if there is none.
        pid: i32,
    },
    /// Where a process stands.
    State(StateReply),
    /// How a process ended.
    Exit(Exit),
    /// What was deleted.
    Deleted {
        /// The pid it had.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
}

/// Status of a process as State reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of containerd.v1.types.Status")]
pub enum Status {
    Created,
    Running,
    Stopped,
    Paused,
    Pausing,
}

/// The answer to State.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReply {
    /// The container's id or the exec's.
    pub id: String,
    /// 0 where there is none.
    pub pid: i32,
    /// Where the process stands.
    pub status: Status,
    /// What it is connected to.
    pub io: IoPaths,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
}

/// One exec process.
#[derive(Clone, Debug)]
struct Exec {
    state: ExecState,
    io: IoPaths,
    waiters: Vec<CallId>,
    /// The Start in flight.
    starting: Option<CallId>,
    /// Calls whose Delete waits for output to drain.
    deleting: Vec<CallId>,
    drained: bool,
}

/// How far the creation of the container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Creation {
    Preparing,
    OpeningStdio,
    Running,
    /// `delete --force` after a run that may have left something.
    Undoing,
    /// The rootfs is being unmounted.
    Unmounting,
    Done,
}

/// How far a Delete of init has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletion {
    Runtime,
    Unmount,
    Exit,
    Drain,
}

/// The lifecycle operation on init that is in flight.
#[derive(Clone, Debug)]
enum Operation {
    Start(CallId),
    Pause(CallId),
    Resume(CallId),
    Update(CallId),
    Checkpoint(CallId),
    Delete(Vec<CallId>, Deletion),
}

/// One container and all that is known of it.
#[derive(Clone, Debug)]
pub struct Container {
    id: String,
    init: InitState,
    io: IoPaths,
    from_checkpoint: bool,
    facts: Option<Facts>,
    creation: Creation,
    creator: Option<CallId>,
    /// Deletes that met the creation: they are answered when it is undone.
    aborters: Vec<CallId>,
    create_failure: Option<Refusal>,
    operation: Option<Operation>,
    queue: VecDeque<(CallId, Command)>,
    waiters: Vec<CallId>,
    execs: BTreeMap<String, Exec>,
    exec_tombstones: VecDeque<(String, i32, Exit)>,
    drained: bool,
    killing_rest: bool,
    /// Calls whose own run of the runtime (kill, ps) is in flight.
    asking_runtime: BTreeSet<CallId>,
    publish_anyway: bool,
    /// The daemon has been told of the container.
    announced: bool,
    /// The rules have failed once (DESIGN rule 9).
    broken: bool,
    /// When the input being handled happened; the rules have no clock of their own.
    now: SystemTime,
}

/// How many deleted execs are remembered, so that a late Delete gets the same answer again
/// (DESIGN rule 11).
const EXEC_TOMBSTONES: usize = 64;

impl Container {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Takes one input that happened at `now`; what is to be done about it is appended to `out`.
    pub fn handle(&mut self, now: SystemTime, input: Input, out: &mut Vec<Effect>) {
        self.now = now;
        if self.broken {
            return self.handle_broken(input, out);
        }
        match input {
            Input::Command(call, command) => self.command(call, command, out),
            Input::CallGone(call) => self.call_gone(call),
            Input::Prepared(result) => self.prepared(result, out),
            Input::StdioOpened(Target::Init, result) => self.init_stdio_opened(result, out),
            Input::StdioOpened(Target::Exec(id), result) => {
                self.exec_stdio_opened(&id, result, out);
            }
            Input::Ran(step, result) => self.ran(step, result, out),
            Input::Exited(target, exit) => self.exited(&target, exit, out),
            Input::Oom => self.oom(out),
            Input::Drained(target) => self.has_drained(&target, out),
            Input::Unmounted(result) => self.unmounted(result, out),
            Input::Timer(timer) => self.timer(&timer, out),
        }
    }

    fn command(&mut self, call: CallId, command: Command, out: &mut Vec<Effect>) {
        if self.creation != Creation::Done {
            return self.command_while_creating(call, &command, out);
        }
        match command {
            Command::Start(Target::Exec(id)) => self.start_exec(call, &id, out),
            Command::Delete(Target::Exec(id)) => self.delete_exec(call, &id, out),
            Command::Exec { id, io, spec } => self.add_exec(call, id, io, spec, out),
            Command::Kill {
                target: Target::Exec(id),
                signal,
                ..
            } => {
                self.kill_exec(call, &id, signal, out);
            }
            Command::Kill {
                target: Target::Init,
                signal,
                all,
            } => {
                self.kill_init(call, signal, all, out);
            }
            Command::State(target) => self.state(call, &target, out),
            Command::Wait(target) => self.wait(call, &target, out),
            Command::Connect => {
                out.push(Effect::Reply(
                    call,
                    Ok(Reply::Connect {
                        pid: self.init.pid(),
                    }),
                ));
            }
            Command::Pids => self.pids(call, out),
            Command::Stats => out.push(Effect::ReadStats(call)),
            Command::CloseIo(target) => self.close_io(call, &target, out),
            Command::Resize {
                target,
                width,
                height,
            } => {
                self.resize(call, target, width, height, out);
            }
            command @ (Command::Start(Target::Init)
            | Command::Delete(Target::Init)
            | Command::Pause
            | Command::Resume
            | Command::Update(_)
            | Command::Checkpoint(_)) => self.enqueue(call, command, out),
        }
    }

    fn ran(&mut self, step: Step, result: Result<Option<i32>, RunFailure>, out: &mut Vec<Effect>) {
        match step {
            Step::Create => self.create_ran(result, out),
            Step::Start | Step::Restore => self.start_ran(result, out),
            Step::Pause | Step::Resume | Step::Update | Step::Checkpoint => {
                self.operation_ran(result.map(drop), out);
            }
            Step::Delete if self.creation != Creation::Done => self.undone(out),
            Step::Delete => self.delete_ran(result.map(drop), out),
            Step::Kill(call) => {
                self.asking_runtime.remove(&call);
                let reply = result
                    .map(|_| Reply::Empty)
                    .map_err(|failure| failure.refusal);
                out.push(Effect::Reply(call, reply));
            }
            // The supervisor answers Ps itself, with the pids; only a failure comes here.
            Step::Ps(call) => {
                self.asking_runtime.remove(&call);
                if let Err(failure) = result {
                    out.push(Effect::Reply(call, Err(failure.refusal)));
                }
            }
            // Only a broken container is destroyed, and it does not come here.
            Step::Destroy => {}
            Step::Exec(id) => self.exec_ran(&id, result, out),
            Step::Thaw => {
                if let Err(failure) = result {
                    out.push(Effect::Log(format!(
                        "thaw after init's exit: {}",
                        failure.refusal
                    )));
                }
            }
            Step::KillRest => {
                self.killing_rest = false;
                if let Err(failure) = result {
                    out.push(Effect::Log(format!(
                        "kill of what init left behind: {}",
                        failure.refusal
                    )));
                }
                self.settle(out);
            }
        }
    }

    fn timer(&mut self, timer: &Timer, out: &mut Vec<Effect>) {
        match timer {
            Timer::StopRuns => self.stop_runs(out),
            Timer::PublishAnyway => {
                self.publish_anyway = true;
                self.settle(out);
            }
            Timer::Drain(Target::Init) => self.drain_over(out),
            Timer::Drain(Target::Exec(id)) => self.exec_drain_over(id, out),
            Timer::AwaitExit => self.exit_overdue(out),
        }
    }

    /// A client that went away waits for nothing; what it began goes on to its end (rule 6).
    fn call_gone(&mut self, call: CallId) {
        self.waiters.retain(|waiter| *waiter != call);
        for exec in self.execs.values_mut() {
            exec.waiters.retain(|waiter| *waiter != call);
        }
    }
}

/// The end of something that never had a process: the answer for deletes of it.
fn never_ran() -> Exit {
    Exit {
        status: 0,
        at: SystemTime::UNIX_EPOCH,
    }
}
