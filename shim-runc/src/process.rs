//! The pure rules of a single process: its states, what each state refuses, and the words of
//! the refusals, which clients match by text (shim-contract section 2).

use std::time::SystemTime;

use task_api::status::Refusal;

/// How a process ended: 0 to 255, where 128 + n stands for death by signal n, and when it was
/// reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit status as containerd reports it.
    pub status: u32,
    /// The moment at which the kernel handed us the status.
    pub at: SystemTime,
}

/// What a container's init is doing while it has a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `runc create` is done, the user's program has not been started.
    Created,
    /// The user's program runs.
    Running,
    /// The container's cgroup is frozen.
    Paused,
}

/// The life of the init process. The pid and the exit live inside the states that have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitState {
    /// The operation that creates the container is under way; nobody can see it yet.
    Creating,
    /// Waits for Start to run `restore`; there is no process.
    FromCheckpoint,
    /// There is a process, or there was one whose exit is held back (`died`) until every exec
    /// has reported its own.
    Alive {
        /// Process id as the shim's own namespace sees it.
        pid: i32,
        /// What the process is doing.
        phase: Phase,
        /// Set from the moment the process was reaped until its exit is published.
        died: Option<Exit>,
    },
    /// The exit is published.
    Stopped {
        /// The pid it had; 0 when there never was one.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
}

/// The life of an exec process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecState {
    /// Registered by Exec, not started.
    Added,
    /// Start is under way: stdio is being opened or `runc exec` runs.
    Starting,
    /// The process runs.
    Running {
        /// Process id as the shim's own namespace sees it.
        pid: i32,
    },
    /// It ended, or could not be started (then the pid is 0).
    Stopped {
        /// The pid it had; 0 when there never was one.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
}

impl ExecState {
    /// True while the exec holds back the exit of its container's init.
    pub fn holds_init(&self) -> bool {
        matches!(self, Self::Starting | Self::Running { .. })
    }

    /// The pid, or 0 where there is none.
    pub fn pid(&self) -> i32 {
        match self {
            Self::Added | Self::Starting => 0,
            Self::Running { pid } | Self::Stopped { pid, .. } => *pid,
        }
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Stopped { exit, .. } => Some(*exit),
            Self::Added | Self::Starting | Self::Running { .. } => None,
        }
    }

    /// Whether Start may begin; the refusal otherwise.
    pub fn check_start(&self) -> Result<(), Refusal> {
        match self {
            Self::Added => Ok(()),
            Self::Starting | Self::Running { .. } => {
                Err(Refusal::unknown("cannot start a running process"))
            }
            Self::Stopped { .. } => Err(Refusal::unknown("cannot start a stopped process")),
        }
    }

    /// Whether Delete may begin; the refusal otherwise.
    pub fn check_delete(&self) -> Result<(), Refusal> {
        match self {
            Self::Added | Self::Stopped { .. } => Ok(()),
            Self::Starting | Self::Running { .. } => {
                Err(Refusal::unknown("cannot delete a running process"))
            }
        }
    }
}

/// The operations on init that the state table speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitOperation {
    /// Start the user's program, or restore it.
    Start,
    /// Freeze the container.
    Pause,
    /// Thaw the container.
    Resume,
    /// Change its resource limits.
    Update,
    /// Dump it with criu.
    Checkpoint,
    /// Register an exec process.
    Exec,
    /// Delete the container.
    Delete,
}

impl InitState {
    /// The pid, or 0 where there is none.
    pub fn pid(&self) -> i32 {
        match self {
            Self::Creating | Self::FromCheckpoint => 0,
            Self::Alive { pid, .. } | Self::Stopped { pid, .. } => *pid,
        }
    }

    /// How it ended, once that is published.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Stopped { exit, .. } => Some(*exit),
            Self::Creating | Self::FromCheckpoint | Self::Alive { .. } => None,
        }
    }

    /// One cell of the state table of shim-contract section 2: Ok, or the refusal with the text
    /// that clients know. Refusals of the state machine carry gRPC code Unknown.
    pub fn check(&self, operation: InitOperation) -> Result<(), Refusal> {
        use InitOperation as Op;
        let phase = match self {
            Self::Creating => return Err(not_created()),
            Self::FromCheckpoint => {
                return match operation {
                    Op::Start | Op::Delete => Ok(()),
                    Op::Pause => Err(Refusal::unknown("cannot pause task in created state")),
                    Op::Resume => Err(Refusal::unknown("cannot resume task in created state")),
                    Op::Checkpoint => Err(Refusal::unknown(
                        "cannot checkpoint a task in created state",
                    )),
                    Op::Update => Err(Refusal::unknown("cannot update a task in created state")),
                    Op::Exec => Err(Refusal::unknown("cannot exec in a created state")),
                };
            }
            Self::Stopped { .. } => {
                return match operation {
                    Op::Delete => Ok(()),
                    Op::Start => Err(Refusal::unknown("cannot start a stopped process")),
                    Op::Pause => Err(Refusal::unknown("cannot pause a stopped container")),
                    Op::Resume => Err(Refusal::unknown("cannot resume a stopped container")),
                    Op::Update => Err(Refusal::unknown("cannot update a stopped container")),
                    Op::Checkpoint => {
                        Err(Refusal::unknown("cannot checkpoint a stopped container"))
                    }
                    Op::Exec => Err(Refusal::unknown("cannot exec in a stopped state")),
                };
            }
            // Its exit is held back; what init left behind is to die, not to be frozen.
            Self::Alive { died: Some(_), .. } if operation == Op::Pause => {
                return Err(Refusal::unknown("cannot pause a stopped container"));
            }
            Self::Alive { phase, .. } => *phase,
        };
        match (phase, operation) {
            (Phase::Created, Op::Start | Op::Update | Op::Exec | Op::Delete)
            | (Phase::Running, Op::Pause | Op::Update | Op::Checkpoint | Op::Exec)
            | (Phase::Paused, Op::Resume | Op::Update | Op::Checkpoint) => Ok(()),
            (Phase::Created, Op::Pause) => {
                Err(Refusal::unknown("cannot pause task in created state"))
            }
            (Phase::Created, Op::Resume) => {
                Err(Refusal::unknown("cannot resume task in created state"))
            }
            (Phase::Created, Op::Checkpoint) => Err(Refusal::unknown(
                "cannot checkpoint a task in created state",
            )),
            (Phase::Running, Op::Start) => Err(Refusal::unknown("cannot start a running process")),
            (Phase::Running, Op::Resume) => {
                Err(Refusal::unknown("cannot resume a running process"))
            }
            (Phase::Running, Op::Delete) => {
                Err(Refusal::unknown("cannot delete a running process"))
            }
            (Phase::Paused, Op::Start) => Err(Refusal::unknown("cannot start a paused process")),
            (Phase::Paused, Op::Pause) => Err(Refusal::unknown("cannot pause a paused container")),
            (Phase::Paused, Op::Exec) => Err(Refusal::unknown("cannot exec in a paused state")),
            (Phase::Paused, Op::Delete) => Err(Refusal::unknown("cannot delete a paused process")),
        }
    }
}

/// The answer for a container that does not exist, is not ready yet, or is deleted.
pub fn not_created() -> Refusal {
    Refusal::not_found("container not created")
}

/// The answer for an exec id that nobody registered.
pub fn no_such_process(id: &str) -> Refusal {
    Refusal::not_found(format!("process does not exist {id}"))
}

/// The end of an exec that could not be started: nobody's program returned this.
pub fn never_started(now: SystemTime) -> Exit {
    Exit {
        status: 255,
        at: now,
    }
}
