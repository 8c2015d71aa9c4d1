//! What can go wrong, in words that name the thing and, where there is one, the remedy.

use std::fmt;
use std::io;
use std::process::ExitCode;

use tonic::{Code, Status};

use crate::output;

/// A failure of a command.
#[derive(Debug)]
pub(crate) enum Error {
    /// No connection to the daemon's socket.
    Connect {
        /// Path of the socket.
        socket: String,
        /// Why not.
        cause: io::Error,
    },
    /// The daemon refused a call.
    Refused {
        /// What it was to do.
        what: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// An operation of the system failed.
    Io {
        /// On what.
        what: String,
        /// Why.
        cause: io::Error,
    },
    /// Anything else, said whole.
    Said(String),
    /// Errors of several things that were to be done, each told already.
    Told,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(what: impl Into<String>, cause: io::Error) -> Self {
        let what = what.into();
        Self::Io { what, cause }
    }

    pub(crate) fn refused(what: impl Into<String>, status: Status) -> Self {
        Self::Refused {
            what: what.into(),
            status: Box::new(status),
        }
    }

    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    /// Whether the daemon answered that the thing is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == Code::NotFound)
    }

    /// Whether the reader of our output went away.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if cause.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code that says how a command could not be run, where the runtime's words tell.
    fn not_run(&self) -> Option<u8> {
        let Self::Refused { status, .. } = self else {
            return None;
        };
        let text = status.message();
        let is_exec = text.contains("exec:") || text.contains("executable file");
        if is_exec && text.contains("permission denied") {
            Some(126)
        } else if text.contains("executable file not found")
            || is_exec && text.contains("no such file or directory")
        {
            Some(127)
        } else {
            None
        }
    }

    /// Tells the failure on stderr and answers the exit code: `own`, or what says more.
    pub(crate) fn report(&self, own: u8) -> ExitCode {
        if self.is_broken_pipe() {
            return ExitCode::SUCCESS;
        }
        if !matches!(self, Self::Told) {
            output::complain(self);
        }
        let runs = own == crate::cli::RUN_FAILED;
        ExitCode::from(self.not_run().filter(|_| runs).unwrap_or(own))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { socket, cause } => {
                write!(f, "cannot connect to {socket}: ")?;
                match cause.kind() {
                    io::ErrorKind::NotFound => f.write_str(
                        "there is no such socket (is wherryd running? --address or \
                         CONTAINERD_ADDRESS name another socket)",
                    ),
                    io::ErrorKind::ConnectionRefused => f.write_str(
                        "no daemon listens there (is wherryd running? what it last said is in its \
                         log)",
                    ),
                    io::ErrorKind::PermissionDenied => f.write_str(
                        "permission denied (the socket is open to root and the group that the \
                         daemon's configuration names)",
                    ),
                    _ => cause.fmt(f),
                }
            }
            Self::Refused { what, status } if status.code() == Code::Unimplemented => {
                write!(f, "{what}: this daemon does not offer it")
            }
            Self::Refused { what, status } if status.message().is_empty() => {
                write!(f, "{what}: {}", status.code())
            }
            Self::Refused { what, status } => write!(f, "{what}: {}", status.message()),
            Self::Io { what, cause } => write!(f, "{what}: {cause}"),
            Self::Said(text) => f.write_str(text),
            Self::Told => Ok(()),
        }
    }
}

/// Names what an operation of the system was about.
pub(crate) trait Context<T> {
    /// The error with `what` in front.
    fn about(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn about(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|cause| Error::io(what, cause))
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn about(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|cause| Error::io(what, cause.into()))
    }
}

impl<T> Context<T> for std::result::Result<T, Status> {
    fn about(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|status| Error::refused(what, status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_words_choose_the_exit_code() {
        let code = |text: &str| Error::refused("x", Status::unknown(text)).not_run();
        let start = "runc create failed: unable to start container process: exec: ";
        assert_eq!(
            code(&format!(
                "{start}\"x\": executable file not found in $PATH: unknown"
            )),
            Some(127)
        );
        assert_eq!(
            code(&format!(
                "{start}\"/x\": stat /x: no such file or directory"
            )),
            Some(127)
        );
        assert_eq!(
            code(&format!("{start}\"/x\": permission denied")),
            Some(126)
        );
        assert_eq!(code("mount: no such file or directory"), None);
    }

    #[test]
    fn a_missing_daemon_is_said_with_its_socket() {
        let said = |kind: io::ErrorKind| {
            Error::Connect {
                socket: "/s".into(),
                cause: kind.into(),
            }
            .to_string()
        };
        assert!(
            said(io::ErrorKind::ConnectionRefused)
                .starts_with("cannot connect to /s: no daemon listens there (is wherryd running?")
        );
        assert!(said(io::ErrorKind::PermissionDenied).contains("group"));
    }
}
