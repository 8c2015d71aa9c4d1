//! Starts a call of the runtime, and reads its outcome once the reaper has reported its exit.
//! Nothing waits here: between the two, the supervisor goes on.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sys::spawn::{Child, Spawn, Stdio};

use super::command::Call;
use super::error::{ErrorKind, RuntimeError};
use super::kind::Operation;

/// How much of the end of a runtime's log is read, in bytes.
const LOG_LIMIT: usize = 64 * 1024;
/// How much of a failed runtime's output is read, in bytes.
const OUTPUT_LIMIT: usize = 16 * 1024;
/// How much of the answer of `ps` and `features` is read, in bytes: a list of pids grows with the
/// container, and half of it would be no JSON.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
/// Never handed to a runtime: a supervisor's readiness socket is none of the container's business
/// (shim-contract 1.2).
const STRIPPED: &str = "NOTIFY_SOCKET";

/// The environment of a call, as given to [`Call::start`].
pub type Environment = [(OsString, OsString)];

/// The standard streams of a call.
#[derive(Debug, Default)]
pub enum ContainerStdio {
    /// Nothing to read, and what the runtime prints is collected: every call that runs no process
    /// of the container, and those whose process gets a terminal.
    #[default]
    Collected,
    /// The process's own streams; `None` is /dev/null.
    Process {
        /// Its standard input.
        stdin: Option<OwnedFd>,
        /// Its standard output.
        stdout: Option<OwnedFd>,
        /// Its standard error; the runtime's own complaints go there too, as with Go's shims.
        stderr: Option<OwnedFd>,
    },
}

/// A call whose runtime runs. Dropping it closes its descriptors; the child is the reaper's.
#[derive(Debug)]
pub struct Running {
    /// The runtime.
    pub child: Child,
    operation: Operation,
    program: String,
    log: OwnedFd,
    output: Option<OwnedFd>,
    /// The file the runtime was told to read, open as long as it may do so.
    _input: Option<OwnedFd>,
}

/// What a call that succeeded printed; empty where its streams were the process's.
pub type Output = Vec<u8>;

impl Call {
    /// Starts the runtime: in a process group of its own, to be killed when the calling thread
    /// ends (call it from the main thread only), with `env` less `NOTIFY_SOCKET`, in `cwd`. The
    /// runtime is looked up in the PATH of `env` unless its name has a slash.
    ///
    /// # Errors
    /// The runtime could not be found or executed; the text is the client's.
    pub fn start(
        mut self,
        env: &Environment,
        cwd: &Path,
        stdio: ContainerStdio,
    ) -> Result<Running, RuntimeError> {
        let program = self.program.to_string_lossy().into_owned();
        let operation = self.operation;
        let input = self.input.take();
        let spawned = self.spawn(env, cwd, stdio);
        let (child, log, output) =
            spawned.map_err(|e| RuntimeError::from_spawn(operation, &program, &e))?;
        Ok(Running {
            child,
            operation,
            program,
            log,
            output,
            _input: input,
        })
    }

    fn spawn(
        self,
        env: &Environment,
        cwd: &Path,
        stdio: ContainerStdio,
    ) -> io::Result<(Child, OwnedFd, Option<OwnedFd>)> {
        let log = sys::memfd::empty("wherry-log")?;
        let (stdin, stdout, stderr, output) = match stdio {
            ContainerStdio::Collected => {
                let output = sys::memfd::empty("wherry-output")?;
                let (out, err) = (output.try_clone()?, output.try_clone()?);
                (Stdio::Null, Stdio::Fd(out), Stdio::Fd(err), Some(output))
            }
            ContainerStdio::Process {
                stdin,
                stdout,
                stderr,
            } => {
                let or_null = |fd: Option<OwnedFd>| fd.map_or(Stdio::Null, Stdio::Fd);
                (or_null(stdin), or_null(stdout), or_null(stderr), None)
            }
        };
        let args = self.argv(&sys::memfd::proc_path(log.as_fd()));
        log::debug!("run {args:?}");
        let env = environment(env, self.path_first.as_deref());
        let child = Spawn {
            program: find(&self.program, &env)?,
            args,
            env,
            cwd: Some(cwd.to_owned()),
            stdin,
            stdout,
            stderr,
            parent_death_signal: Some(libc::SIGKILL),
            new_process_group: true,
            ..Spawn::new(PathBuf::new())
        }
        .spawn()?;
        Ok((child, log, output))
    }
}

/// `env` without what is stripped, and with `path_first` in front of its PATH.
fn environment(env: &Environment, path_first: Option<&Path>) -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = env
        .iter()
        .filter(|(name, _)| name != STRIPPED)
        .cloned()
        .collect();
    if let Some(dir) = path_first {
        let mut path = dir.as_os_str().to_owned();
        match env.iter_mut().find(|(name, _)| name == "PATH") {
            Some((_, value)) => {
                path.push(":");
                path.push(&value);
                *value = path;
            }
            None => env.push(("PATH".into(), path)),
        }
    }
    env
}

/// The runtime's absolute path. A name with a slash is taken as it is, from the working directory.
fn find(program: &Path, env: &Environment) -> io::Result<PathBuf> {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return std::path::absolute(program);
    }
    let path = env.iter().find(|(name, _)| name == "PATH");
    let path = path.map_or_else(OsString::new, |(_, value)| value.clone());
    sys::spawn::find_program(program, &path)
}

impl Running {
    /// Which command this is.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The outcome, `status` being that of the exit notice: the exit code, or 128 + signal.
    ///
    /// A `delete` of a container the runtime does not know has succeeded: checkpointing deletes
    /// it, and so does a cleanup that ran before (shim-contract section 2).
    ///
    /// # Errors
    /// The runtime failed; the text is the client's.
    pub fn outcome(self, status: u32) -> Result<Output, RuntimeError> {
        let answers = matches!(self.operation, Operation::Ps | Operation::Features);
        if status == 0 {
            return Ok(match self.output {
                Some(output) if answers => tail(output, ANSWER_LIMIT),
                _ => Vec::new(),
            });
        }
        let log = tail(self.log, LOG_LIMIT);
        let output = self
            .output
            .map_or_else(Vec::new, |output| tail(output, OUTPUT_LIMIT));
        let error = RuntimeError::from_exit(self.operation, &self.program, status, &log, &output);
        match (self.operation, error.kind) {
            (Operation::Delete, ErrorKind::NoSuchContainer) => Ok(Vec::new()),
            _ => Err(error),
        }
    }
}

/// The last `limit` bytes of a memory file, which has been written by now: nothing blocks.
fn tail(file: OwnedFd, limit: usize) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::from(file);
        let size = file.metadata()?.len();
        let length = size.min(limit as u64);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(limit)];
        file.read_exact_at(&mut bytes, size - length)?;
        Ok(bytes)
    };
    read().unwrap_or_else(|e| {
        log::warn!("reading what the runtime wrote: {e}");
        Vec::new()
    })
}

#[cfg(test)]
mod tests;
