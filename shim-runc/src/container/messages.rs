//! The words between the supervisor and the rules: what goes in (commands, inputs) and what comes
//! out (effects, events, replies).

use task_api::status::Refusal;

use crate::process::Exit;
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
    /// The runtime's `delete` has hung for long enough: it is killed, and the Delete fails.
    StopDelete,
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
