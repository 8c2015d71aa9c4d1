//! Starting a program: one description, one call, a child with a clean state.
//!
//! The child is made by clone(2) with `CLONE_VM | CLONE_VFORK`: no page table is copied, so the
//! cost does not grow with the parent, and when the call returns the program runs or the error
//! is known.
//!
//! Measured (`tests/spawn_cost.rs`, debug build on a busy 2-core machine, /bin/true, medians of
//! 1000, interleaved): 131 µs to spawn and 709 µs to spawn and wait, beside 129 and 699 for
//! `std::process::Command` with the same streams, which takes its posix_spawn path; 132 and 707
//! beside 128 and 708 with 64 MB in the parent. The standard library leaves that path for fork as soon as `pre_exec`
//! is used, which a parent-death signal would need; here nothing does.
//!
//! The child gets: exactly the given environment; an empty signal mask and the default action
//! for every signal (the parent ignores SIGPIPE and blocks what its signalfd reads; both would
//! be inherited across execve otherwise); standard streams and extra descriptors at the numbers
//! asked for, and no other descriptor that is close-on-exec, as all of ours are; the limit of open
//! descriptors that the parent was started with. Other limits, user, session and everything else stay
//! as the parent's.

mod child;

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// What a standard stream of the child is.
#[derive(Debug, Default)]
pub enum Stdio {
    /// /dev/null.
    #[default]
    Null,
    /// This descriptor, which is closed in the parent when the spawn is done.
    Fd(OwnedFd),
}

/// A program to start. All descriptors given here are closed in the parent by [`Spawn::spawn`],
/// whether it succeeds or not: an end of a pipe kept by mistake would never see its end of file.
#[derive(Debug)]
pub struct Spawn {
    /// The file to execute, an absolute path ([`find_program`] finds it).
    pub program: PathBuf,
    /// All arguments, the program's own name as the first.
    pub args: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory; `None` keeps the parent's.
    pub cwd: Option<PathBuf>,
    /// Descriptor 0.
    pub stdin: Stdio,
    /// Descriptor 1.
    pub stdout: Stdio,
    /// Descriptor 2.
    pub stderr: Stdio,
    /// Further descriptors and the numbers (3 and up, each once) that they shall have.
    pub extra_fds: Vec<(OwnedFd, RawFd)>,
    /// The signal that the child gets when the *thread* that spawns it ends (`PR_SET_PDEATHSIG`,
    /// prctl(2)): spawn such children from a thread that lives as long as the process.
    pub parent_death_signal: Option<i32>,
    /// Whether the child becomes the leader of a process group of its own.
    pub new_process_group: bool,
}

/// A started child. It must be collected through [`crate::wait`]; dropping this only closes
/// the descriptor.
#[derive(Debug)]
pub struct Child {
    /// Its pid.
    pub pid: i32,
    /// A descriptor for it (close-on-exec), readable once it has ended.
    pub pidfd: OwnedFd,
}

/// The step at which a spawn failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A program path, argument or environment entry that no program can get.
    Arguments(String),
    /// Opening /dev/null or moving the parent's descriptor out of the way.
    PrepareDescriptors,
    /// The memory for the child's stack.
    Stack,
    /// clone(2): out of processes or memory.
    Clone,
    /// Putting a descriptor at this number.
    Descriptor(RawFd),
    /// setpgid(2).
    ProcessGroup,
    /// The parent-death signal with this number.
    ParentDeathSignal(i32),
    /// Entering this directory.
    WorkingDirectory(PathBuf),
    /// Executing this program.
    Exec(PathBuf),
}

/// Why a program could not be started. It travels as the inner error of an [`io::Error`] with
/// the kind of `source` (`NotFound`, `PermissionDenied` and so on).
#[derive(Debug)]
pub struct SpawnError {
    /// What was being done.
    pub step: Step,
    /// The system's answer.
    pub source: io::Error,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Step::Arguments(what) => write!(f, "spawn: {what}"),
            Step::PrepareDescriptors => write!(f, "spawn: prepare descriptors"),
            Step::Stack => write!(f, "spawn: allocate a stack"),
            Step::Clone => write!(f, "spawn: clone"),
            Step::Descriptor(number) => write!(f, "spawn: place descriptor {number}"),
            Step::ProcessGroup => write!(f, "spawn: make a process group"),
            Step::ParentDeathSignal(signal) => write!(f, "spawn: parent-death signal {signal}"),
            Step::WorkingDirectory(path) => write!(f, "chdir {}", path.display()),
            Step::Exec(path) => write!(f, "exec {}", path.display()),
        }?;
        write!(f, ": {}", self.source)
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Step {
    fn failed(self, source: io::Error) -> io::Error {
        io::Error::new(source.kind(), SpawnError { step: self, source })
    }
}

impl Spawn {
    /// A program with its own path as the only argument, no environment, and /dev/null for the
    /// standard streams.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        Self {
            args: vec![program.clone().into_os_string()],
            program,
            env: Vec::new(),
            cwd: None,
            stdin: Stdio::Null,
            stdout: Stdio::Null,
            stderr: Stdio::Null,
            extra_fds: Vec::new(),
            parent_death_signal: None,
            new_process_group: false,
        }
    }

    /// Starts the program. The calling thread waits until the child has executed it or failed,
    /// some 100 µs. The error is a [`SpawnError`] inside; a child that failed before the program
    /// ran has been collected again and leaves nothing but perhaps a SIGCHLD.
    pub fn spawn(self) -> io::Result<Child> {
        let program = self.program_c()?;
        let args = self
            .args
            .iter()
            .map(|arg| c_string(arg.as_bytes().to_vec(), "argument"))
            .collect::<io::Result<Vec<_>>>()?;
        let env = self
            .env
            .iter()
            .map(|(name, value)| {
                let mut entry = name.as_bytes().to_vec();
                entry.push(b'=');
                entry.extend_from_slice(value.as_bytes());
                c_string(entry, "environment entry")
            })
            .collect::<io::Result<Vec<_>>>()?;
        let cwd = match &self.cwd {
            Some(path) => Some(c_string(path.as_os_str().as_bytes().to_vec(), "directory")?),
            None => None,
        };
        let Self {
            program: path,
            cwd: cwd_path,
            stdin,
            stdout,
            stderr,
            extra_fds,
            ..
        } = self;
        let descriptors = Descriptors::prepare([stdin, stdout, stderr], extra_fds)?;
        let plan = child::Plan {
            program: &program,
            args: &args,
            env: &env,
            cwd: cwd.as_deref(),
            moves: &descriptors.moves,
            parent_death_signal: self.parent_death_signal,
            new_process_group: self.new_process_group,
            descriptor_limit: crate::process::descriptor_limit_of_children(),
        };
        child::start(&plan).map_err(|(stage, error)| {
            let step = match stage {
                child::Stage::Stack => Step::Stack,
                child::Stage::Clone => Step::Clone,
                child::Stage::Descriptor(target) => Step::Descriptor(target),
                child::Stage::ProcessGroup => Step::ProcessGroup,
                child::Stage::ParentDeathSignal => {
                    Step::ParentDeathSignal(self.parent_death_signal.unwrap_or(0))
                }
                child::Stage::WorkingDirectory => {
                    Step::WorkingDirectory(cwd_path.unwrap_or_default())
                }
                child::Stage::Exec => Step::Exec(path),
            };
            step.failed(error)
        })
    }

    fn program_c(&self) -> io::Result<CString> {
        if !self.program.is_absolute() {
            return Err(invalid(format!(
                "program path is not absolute: {}",
                self.program.display()
            )));
        }
        if self.args.is_empty() {
            return Err(invalid(format!(
                "no arguments for {}",
                self.program.display()
            )));
        }
        c_string(self.program.as_os_str().as_bytes().to_vec(), "program path")
    }
}

fn invalid(what: String) -> io::Error {
    Step::Arguments(what).failed(io::ErrorKind::InvalidInput.into())
}

fn c_string(bytes: Vec<u8>, what: &str) -> io::Result<CString> {
    CString::new(bytes).map_err(|error| {
        let bytes = error.into_vec();
        invalid(format!(
            "{what} with a NUL byte: {:?}",
            OsString::from_vec(bytes)
        ))
    })
}

/// The descriptors of a child: which source goes to which number, and who keeps the sources
/// open meanwhile.
struct Descriptors {
    moves: Vec<(RawFd, RawFd)>,
    _keep: Vec<OwnedFd>,
}

impl Descriptors {
    /// A source that has the number of a target is duplicated above all targets first. So the
    /// child's dup2 calls can come in any order, and none has source and target equal, which
    /// would leave close-on-exec set.
    fn prepare(streams: [Stdio; 3], extra: Vec<(OwnedFd, RawFd)>) -> io::Result<Self> {
        let mut wanted = Vec::with_capacity(3 + extra.len());
        for (stream, target) in streams.into_iter().zip(0..) {
            let fd = match stream {
                Stdio::Fd(fd) => fd,
                Stdio::Null => open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
                    .map_err(|errno| Step::PrepareDescriptors.failed(errno.into()))?,
            };
            wanted.push((fd, target));
        }
        for (fd, target) in extra {
            if target < 3 || wanted.iter().any(|&(_, other)| other == target) {
                return Err(invalid(format!(
                    "descriptor number {target} is taken or negative"
                )));
            }
            wanted.push((fd, target));
        }
        let targets: Vec<RawFd> = wanted.iter().map(|&(_, target)| target).collect();
        let above = targets
            .iter()
            .max()
            .map_or(3, |highest| highest.saturating_add(1));
        let mut moves = Vec::with_capacity(wanted.len());
        let mut keep = Vec::with_capacity(wanted.len());
        for (fd, target) in wanted {
            let fd = if targets.contains(&fd.as_raw_fd()) {
                crate::process::dup_cloexec_from(&fd, above)
                    .map_err(|error| Step::PrepareDescriptors.failed(error))?
            } else {
                fd
            };
            moves.push((fd.as_raw_fd(), target));
            keep.push(fd);
        }
        Ok(Self { moves, _keep: keep })
    }
}

/// Finds a program as execvp(3) does: a name with a slash is taken as it is (made absolute by
/// the working directory), any other is looked up in the folders of `path_env` (the value of
/// PATH; an empty entry is the working directory, as POSIX says).
///
/// `NotFound` when no folder has it, `PermissionDenied` when only files that may not be executed
/// were found. The text names the program, since Docker recognises "executable file not found".
pub fn find_program(name: impl AsRef<OsStr>, path_env: &OsStr) -> io::Result<PathBuf> {
    let name = name.as_ref();
    let mut denied = false;
    let mut usable = |path: &Path| {
        let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let executable =
            is_file && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
        denied |= is_file && !executable;
        executable
    };
    if name.is_empty() {
        return Err(invalid("the name of a program is empty".to_owned()));
    }
    if name.as_bytes().contains(&b'/') {
        let path = std::path::absolute(name)?;
        if usable(&path) {
            return Ok(path);
        }
    } else {
        for folder in std::env::split_paths(path_env) {
            let path = std::path::absolute(Path::new(".").join(folder).join(name))?;
            if usable(&path) {
                return Ok(path);
            }
        }
    }
    let shown = name.to_string_lossy();
    Err(if denied {
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("exec: {shown:?}: permission denied"),
        )
    } else if name.as_bytes().contains(&b'/') {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("exec: {shown:?}: no such file or directory"),
        )
    } else {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("exec: {shown:?}: executable file not found in $PATH"),
        )
    })
}

#[cfg(test)]
mod tests;
