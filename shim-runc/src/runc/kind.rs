//! Which runtime is called, and for what: the two questions whose answers change how a call is
//! made and how its failure is told.

use std::ffi::OsStr;
use std::path::Path;

/// Runtimes whose inner workings the shim knows, and all others. Only the known ones leave the
/// container's own process as pid, so that a signal may go straight to it (design, rule 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// runc.
    Runc,
    /// crun.
    Crun,
    /// youki.
    Youki,
    /// Anything else, wrappers of the above included: its pid may be a sandbox's.
    Other,
}

impl RuntimeKind {
    /// By the file name of the binary: `runc`, and suffixed builds such as `runc.amd64`.
    pub fn of(program: &Path) -> Self {
        let name = program
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or_default();
        match name.split('.').next() {
            Some("runc") => Self::Runc,
            Some("crun") => Self::Crun,
            Some("youki") => Self::Youki,
            _ => Self::Other,
        }
    }

    /// Whether the pid this runtime reports is the container's own process.
    pub fn pid_is_the_container(self) -> bool {
        self != Self::Other
    }

    /// Whether `<root>/<id>` not existing proves that the runtime has no such container, so that
    /// the `delete` binary need not ask it (design, rule 7).
    pub fn state_dir_is_proof(self) -> bool {
        matches!(self, Self::Runc | Self::Crun)
    }
}

/// The commands of a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the runtime's command of that name")]
pub enum Operation {
    Create,
    Start,
    Exec,
    Kill,
    Delete,
    Pause,
    Resume,
    Update,
    Checkpoint,
    Restore,
    Ps,
    Features,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Create,
        Self::Start,
        Self::Exec,
        Self::Kill,
        Self::Delete,
        Self::Pause,
        Self::Resume,
        Self::Update,
        Self::Checkpoint,
        Self::Restore,
        Self::Ps,
        Self::Features,
    ];

    /// The word on the runtime's command line.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Exec => "exec",
            Self::Kill => "kill",
            Self::Delete => "delete",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
            Self::Ps => "ps",
            Self::Features => "features",
        }
    }

    /// What the text of a failure opens with; clients match on it (shim-contract section 6).
    pub fn failure(self) -> &'static str {
        match self {
            Self::Create => "OCI runtime create failed",
            Self::Start => "OCI runtime start failed",
            Self::Exec => "OCI runtime exec failed",
            Self::Kill => "unknown error after kill",
            Self::Delete => "failed to delete task",
            Self::Pause => "OCI runtime pause failed",
            Self::Resume => "OCI runtime resume failed",
            Self::Update => "OCI runtime update failed",
            Self::Checkpoint => "OCI runtime checkpoint failed",
            Self::Restore => "OCI runtime restore failed",
            Self::Ps => "OCI runtime ps failed",
            Self::Features => "OCI runtime features failed",
        }
    }

    /// Whether the call hands its stdio to the container's process.
    pub fn runs_a_process(self) -> bool {
        matches!(self, Self::Create | Self::Exec | Self::Restore)
    }
}
