//! The one place that reads runtimes' error text: finds the last error in the log of a call,
//! classifies it, and words the failure as clients expect it.
//!
//! Clients match on these texts (shim-contract section 6, items 4, 5 and 11): Docker derives exit
//! codes 126 and 127 from them, CRI takes `NotFound` from a Kill as success. Wording was compared
//! with the Go shim of containerd 1.6; the texts matched on are those runc 1.1.5 and crun 1.8.1
//! print, captured in `testdata/`.

use std::fmt;
use std::io;
use std::path::Path;

use serde::Deserialize;
use sys::spawn::{SpawnError, Step};

use super::kind::Operation;

/// What a runtime's error text means, as far as a shim acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The runtime knows no such container.
    NoSuchContainer,
    /// The container, or its process, is not running any more.
    NotRunning,
    /// A container of this id exists already.
    AlreadyExists,
    /// `start` of a container that was started before.
    AlreadyRunning,
    /// Refused because the container is paused.
    Paused,
    /// `resume` of a container that is not paused.
    NotPaused,
    /// `delete` of a container that runs.
    NotStopped,
    /// The program to run does not exist in the container.
    ExecutableNotFound,
    /// The program to run may not be executed.
    PermissionDenied,
    /// A component of the program's path is no directory.
    NotADirectory,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// Classifies one error text. The order matters: the program's own failure to start is looked
    /// at first, since its text quotes names a user chose.
    pub fn of(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let has = |needle: &str| text.contains(needle);
        let start_failed = has("unable to start container process");
        if has("executable file") && has("not found") {
            Self::ExecutableNotFound
        } else if (start_failed || has("open executable")) && has("not a directory") {
            Self::NotADirectory
        } else if start_failed && has("permission denied")
            || has("open executable: permission denied")
            || has("open executable: operation not permitted")
        {
            Self::PermissionDenied
        } else if start_failed && has("exec: ") && has("no such file or directory") {
            Self::ExecutableNotFound
        } else if start_failed {
            Self::Other
        } else if has("container") && has("does not exist")
            // crun has no word for it: the state it wants to read is not there.
            || has("error opening file") && has("/status`: no such file or directory")
            || has("cannot open directory") && has("no such file or directory")
        {
            Self::NoSuchContainer
        } else if has("already exists") {
            Self::AlreadyExists
        } else if has("already running container") || has("/exec.fifo`: no such file") {
            Self::AlreadyRunning
        } else if has("that is not stopped") || has("not in `created` or `stopped` state") {
            Self::NotStopped
        } else if has("container not paused") {
            Self::NotPaused
        } else if has("paused container") || has("is paused") {
            Self::Paused
        } else if has("not running")
            || has("no such process")
            || has("process already finished")
            || has("stopped container")
            || has("container that has stopped")
        {
            Self::NotRunning
        } else {
            Self::Other
        }
    }
}

/// A call of the runtime that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeError {
    /// What was asked of the runtime.
    pub operation: Operation,
    /// What its error text means.
    pub kind: ErrorKind,
    /// Whether clients must see `NotFound`; every other failure is `Unknown`, as with Go's shims.
    pub not_found: bool,
    /// The text for the client.
    pub message: String,
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RuntimeError {}

impl RuntimeError {
    /// The failure of a call that ended with `status` (128 + signal for a death by signal), from
    /// the tail of its log and of its output. `program` is the runtime as the options name it.
    pub fn from_exit(op: Operation, program: &str, status: u32, log: &[u8], output: &[u8]) -> Self {
        let log = LogText::read(log);
        let output = String::from_utf8_lossy(output);
        let output = output.trim();
        let mut exit = format!("{program} did not terminate successfully: exit status {status}");
        if !output.is_empty() {
            exit = format!("{exit}: {output}");
        }
        // What the runtime said about the failure, wherever it said it.
        let said = match &log {
            LogText::Error(text) => text.as_str(),
            _ => output,
        };
        let kind = ErrorKind::of(said);
        match op {
            Operation::Kill => Self::of_kill(kind, &exit, said),
            Operation::Update | Operation::Ps | Operation::Features | Operation::Checkpoint => {
                if let (true, LogText::Error(text)) = (output.is_empty(), &log) {
                    exit = format!("{exit}: {text}");
                }
                Self {
                    operation: op,
                    kind,
                    not_found: false,
                    message: exit,
                }
            }
            _ => Self {
                operation: op,
                kind,
                not_found: false,
                message: log.worded(op, &exit),
            },
        }
    }

    /// The failure to start the runtime at all, `program` being its name or path.
    pub fn from_spawn(op: Operation, program: &str, error: &io::Error) -> Self {
        let inner = error.get_ref();
        let text = match inner.and_then(|e| e.downcast_ref::<SpawnError>()) {
            Some(SpawnError {
                step: Step::Exec(_),
                source,
            }) => {
                format!("fork/exec {program}: {}", errno_text(source))
            }
            // The search in PATH words its own failure; so do a lost working directory and others.
            _ if inner.is_some() => errno_text(error),
            _ => format!("{program}: {}", errno_text(error)),
        };
        let message = match op {
            Operation::Kill => format!("unknown error after kill: {text}"),
            Operation::Update | Operation::Ps | Operation::Features | Operation::Checkpoint => text,
            _ => LogText::Unreadable("the runtime was not started".to_owned()).worded(op, &text),
        };
        // The host has no runtime; that says nothing about the container's program.
        Self {
            operation: op,
            kind: ErrorKind::Other,
            not_found: false,
            message,
        }
    }

    /// Kill's own wording: what is gone already is `NotFound`, which clients take as success.
    fn of_kill(kind: ErrorKind, exit: &str, said: &str) -> Self {
        let (not_found, message) = match kind {
            ErrorKind::NotRunning => (true, "process already finished".to_owned()),
            ErrorKind::NoSuchContainer => (true, "no such container".to_owned()),
            _ if exit.ends_with(said) => (false, format!("unknown error after kill: {exit}")),
            _ => (false, format!("unknown error after kill: {exit}: {said}")),
        };
        Self {
            operation: Operation::Kill,
            kind,
            not_found,
            message,
        }
    }

    /// The failure of a checkpoint, pointing to the copy of criu's log at `dump_log`: the first
    /// line of the text only, as criu's errors go on for pages.
    #[must_use]
    pub fn with_criu_log(mut self, dump_log: &Path) -> Self {
        let first = self.message.lines().next().unwrap_or_default();
        self.message = format!("{first} path= {}", dump_log.display());
        self
    }
}

/// What the log of one call holds.
#[derive(Debug, PartialEq, Eq)]
enum LogText {
    /// Its last error.
    Error(String),
    /// Entries, but no error among them.
    NoError,
    /// Nothing that could be read, and why.
    Unreadable(String),
}

/// One log line: runc's and crun's `level` and `msg`, or youki's `level` and `fields.message`.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    fields: Fields,
}

#[derive(Deserialize, Default)]
struct Fields {
    #[serde(default)]
    message: String,
}

impl LogText {
    /// The last entry of level `error`, else the last `fatal` one. Lines that are no log entries
    /// count only when there is no error beside them.
    fn read(log: &[u8]) -> Self {
        let (mut error, mut fatal, mut bad, mut entries) = (None, None, None, 0);
        for line in log
            .split(|b| *b == b'\n')
            .filter(|l| !l.trim_ascii().is_empty())
        {
            match serde_json::from_slice::<Entry>(line) {
                Ok(entry) => {
                    entries += 1;
                    let text = if entry.msg.is_empty() {
                        entry.fields.message
                    } else {
                        entry.msg
                    };
                    let text = Some(text.trim().to_owned()).filter(|t| !t.is_empty());
                    match entry.level.to_ascii_lowercase().as_str() {
                        "error" => error = text.or(error),
                        "fatal" => fatal = text.or(fatal),
                        _ => {}
                    }
                }
                Err(e) => bad = bad.or_else(|| Some(e.to_string())),
            }
        }
        match (error.or(fatal), bad) {
            (Some(text), _) => Self::Error(text),
            (None, Some(why)) => Self::Unreadable(why),
            (None, None) if entries == 0 => Self::Unreadable("no log was written".to_owned()),
            (None, None) => Self::NoError,
        }
    }

    /// Go's wording of a failed call: the runtime's error if there is one, else how it exited.
    fn worded(&self, op: Operation, exit: &str) -> String {
        let prefix = op.failure();
        match self {
            Self::Error(text) => format!("{prefix}: {text}"),
            Self::NoError => format!("{prefix}: {exit}"),
            Self::Unreadable(why) => {
                format!("{prefix}: unable to retrieve OCI runtime error ({why}): {exit}")
            }
        }
    }
}

/// An I/O error in the words Go programs use and clients match on: lower case, no number.
pub(crate) fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests;
