//! The argument vectors of an OCI runtime, one function per command. Building a call starts
//! nothing: [`super::call`] does that, from the main thread.
//!
//! Flags and their order follow shim-contract section 2; crun and youki take the same ones.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::kind::{Operation, RuntimeKind};
use super::options::RuncOptions;

/// The runtime's state root when the options name none.
const DEFAULT_ROOT: &str = "/run/containerd/runc";
/// The runtime when the options name none.
const DEFAULT_BINARY: &str = "runc";

/// A runtime as one container uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The binary as the options name it: a path, or a name to look up in PATH.
    pub program: PathBuf,
    /// Root of its state, the namespace included.
    pub root: PathBuf,
    /// Whether systemd manages the cgroups.
    pub systemd_cgroup: bool,
    /// criu's path, where the options name one.
    pub criu: Option<PathBuf>,
    /// What is known about the binary.
    pub kind: RuntimeKind,
}

/// What `create` needs.
#[derive(Debug)]
pub struct CreateArgs<'a> {
    /// Container id, validated: it never starts with a dash.
    pub id: &'a str,
    /// Absolute path of the bundle.
    pub bundle: &'a Path,
    /// Where the runtime is to write the pid.
    pub pid_file: &'a Path,
    /// Socket on which the shim waits for the terminal.
    pub console_socket: Option<&'a Path>,
    /// From the options.
    pub no_pivot_root: bool,
    /// From the options.
    pub no_new_keyring: bool,
}

/// What `exec` needs.
#[derive(Debug)]
pub struct ExecArgs<'a> {
    /// Container id.
    pub id: &'a str,
    /// The OCI process as JSON, passed on as it is.
    pub process: &'a [u8],
    /// Where the runtime is to write the pid.
    pub pid_file: &'a Path,
    /// Socket on which the shim waits for the terminal.
    pub console_socket: Option<&'a Path>,
}

/// What `checkpoint` needs; the flags are those of the request's options.
#[derive(Debug)]
pub struct CheckpointArgs<'a> {
    /// Container id.
    pub id: &'a str,
    /// Where the image goes.
    pub image_path: &'a Path,
    /// criu's working directory.
    pub work_path: &'a Path,
    /// An earlier image this one builds on.
    pub parent_path: Option<&'a Path>,
    /// Keep the container running.
    pub leave_running: bool,
    /// Established TCP connections too.
    pub open_tcp: bool,
    /// Unix sockets with a peer outside too.
    pub external_unix_sockets: bool,
    /// Terminals too.
    pub terminal: bool,
    /// File locks too.
    pub file_locks: bool,
    /// Namespaces restored empty.
    pub empty_namespaces: &'a [String],
}

/// What `restore` needs.
#[derive(Debug)]
pub struct RestoreArgs<'a> {
    /// Container id.
    pub id: &'a str,
    /// Absolute path of the bundle.
    pub bundle: &'a Path,
    /// The checkpoint's image.
    pub image_path: &'a Path,
    /// criu's working directory.
    pub work_path: &'a Path,
    /// An earlier image it builds on.
    pub parent_path: Option<&'a Path>,
    /// Where the runtime is to write the pid.
    pub pid_file: &'a Path,
    /// Socket on which the shim waits for the terminal.
    pub console_socket: Option<&'a Path>,
    /// From the options.
    pub no_pivot_root: bool,
}

/// A call that is ready to be started.
#[derive(Debug)]
pub struct Call {
    pub(super) operation: Operation,
    pub(super) program: PathBuf,
    /// Global flags, without those of the log.
    globals: Vec<OsString>,
    /// The command and its arguments.
    args: Vec<OsString>,
    /// A memory file the arguments name, to be kept open until the runtime has exited.
    pub(super) input: Option<OwnedFd>,
    /// Directory to put first in PATH, so that the runtime finds the chosen criu there.
    pub(super) path_first: Option<PathBuf>,
}

impl Call {
    /// The whole argument vector; `log` is the file this call's log goes to.
    pub fn argv(&self, log: &Path) -> Vec<OsString> {
        let mut argv = vec![self.program.clone().into_os_string()];
        argv.extend(self.globals.iter().cloned());
        if self.operation != Operation::Features {
            argv.extend([
                "--log".into(),
                log.into(),
                "--log-format".into(),
                "json".into(),
            ]);
        }
        argv.extend(self.args.iter().cloned());
        argv
    }

    /// Which command this is.
    pub fn operation(&self) -> Operation {
        self.operation
    }
}

/// Collects arguments.
struct Args(Vec<OsString>);

impl Args {
    fn flag(mut self, name: &str, set: bool) -> Self {
        if set {
            self.0.push(name.into());
        }
        self
    }

    fn value(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.extend([name.into(), value.as_ref().to_owned()]);
        self
    }

    fn path(self, name: &str, value: Option<&Path>) -> Self {
        match value {
            Some(value) => self.value(name, value),
            None => self,
        }
    }
}

impl Runtime {
    /// The runtime that `options` ask for; its state lies below their root under `namespace`.
    pub fn new(options: &RuncOptions, namespace: &str) -> Self {
        let or = |value: &str, default: &str| {
            PathBuf::from(if value.is_empty() { default } else { value })
        };
        let program = or(&options.binary_name, DEFAULT_BINARY);
        Self {
            kind: RuntimeKind::of(&program),
            program,
            root: or(&options.root, DEFAULT_ROOT).join(namespace),
            systemd_cgroup: options.systemd_cgroup,
            criu: Some(&options.criu_path)
                .filter(|p| !p.is_empty())
                .map(PathBuf::from),
        }
    }

    /// Where runc and crun keep what they know of container `id`.
    pub fn state_dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    fn call(&self, operation: Operation, args: impl FnOnce(Args) -> Args, id: &str) -> Call {
        let mut globals = Args(Vec::new())
            .value("--root", &self.root)
            .flag("--systemd-cgroup", self.systemd_cgroup);
        let mut path_first = None;
        // runc before 1.2 takes criu's path as a flag, later ones ignore it and look in PATH, as
        // does 1.1 for the plain name: so PATH serves every version unless the name differs.
        if let (Operation::Checkpoint | Operation::Restore, Some(criu)) = (operation, &self.criu) {
            match (criu.file_name(), criu.parent()) {
                (Some(name), Some(dir)) if name == "criu" && dir.is_absolute() => {
                    path_first = Some(dir.to_owned());
                }
                _ => globals = globals.value("--criu", criu),
            }
        }
        let mut args = args(Args(vec![operation.verb().into()])).0;
        if !id.is_empty() {
            args.push(id.into());
        }
        Call {
            operation,
            program: self.program.clone(),
            globals: globals.0,
            args,
            input: None,
            path_first,
        }
    }

    fn plain(&self, operation: Operation, id: &str) -> Call {
        self.call(operation, |args| args, id)
    }

    /// Creates the container; its stdio is that of the call.
    pub fn create(&self, a: &CreateArgs<'_>) -> Call {
        let args = |args: Args| {
            args.value("--bundle", a.bundle)
                .value("--pid-file", a.pid_file)
                .path("--console-socket", a.console_socket)
                .flag("--no-pivot", a.no_pivot_root)
                .flag("--no-new-keyring", a.no_new_keyring)
        };
        self.call(Operation::Create, args, a.id)
    }

    /// Starts a created container.
    pub fn start(&self, id: &str) -> Call {
        self.plain(Operation::Start, id)
    }

    /// Runs another process in the container; its stdio is that of the call.
    ///
    /// # Errors
    /// No memory file for the process could be made.
    pub fn exec(&self, a: &ExecArgs<'_>) -> io::Result<Call> {
        let process = sys::memfd::with_contents("wherry-process", a.process)?;
        let path = sys::memfd::proc_path(process.as_fd());
        let args = |args: Args| {
            args.value("--process", path)
                .path("--console-socket", a.console_socket)
                .flag("--detach", true)
                .value("--pid-file", a.pid_file)
        };
        let mut call = self.call(Operation::Exec, args, a.id);
        call.input = Some(process);
        Ok(call)
    }

    /// Sends signal number `signal` to the container's init, or to all of its processes.
    pub fn kill(&self, id: &str, signal: u32, all: bool) -> Call {
        let mut call = self.call(Operation::Kill, |args| args.flag("--all", all), id);
        call.args.push(signal.to_string().into());
        call
    }

    /// Deletes the container's state; `force` kills it first, and is content with nothing there.
    pub fn delete(&self, id: &str, force: bool) -> Call {
        self.call(Operation::Delete, |args| args.flag("--force", force), id)
    }

    /// Freezes the container.
    pub fn pause(&self, id: &str) -> Call {
        self.plain(Operation::Pause, id)
    }

    /// Thaws the container.
    pub fn resume(&self, id: &str) -> Call {
        self.plain(Operation::Resume, id)
    }

    /// Changes the container's limits to `resources`, the OCI LinuxResources as JSON, passed on as
    /// they are.
    ///
    /// # Errors
    /// No memory file for the resources could be made.
    pub fn update(&self, id: &str, resources: &[u8]) -> io::Result<Call> {
        let file = sys::memfd::with_contents("wherry-resources", resources)?;
        let path = sys::memfd::proc_path(file.as_fd());
        let mut call = self.call(
            Operation::Update,
            |args| args.value("--resources", path),
            id,
        );
        call.input = Some(file);
        Ok(call)
    }

    /// Writes the container's state to disk with criu.
    pub fn checkpoint(&self, a: &CheckpointArgs<'_>) -> Call {
        let args = |args: Args| {
            let args = args
                .value("--image-path", a.image_path)
                .value("--work-path", a.work_path)
                .path("--parent-path", a.parent_path)
                .flag("--tcp-established", a.open_tcp)
                .flag("--ext-unix-sk", a.external_unix_sockets)
                .flag("--shell-job", a.terminal)
                .flag("--file-locks", a.file_locks);
            let args = a
                .empty_namespaces
                .iter()
                .fold(args, |args, ns| args.value("--empty-ns", ns));
            args.flag("--leave-running", a.leave_running)
        };
        self.call(Operation::Checkpoint, args, a.id)
    }

    /// Creates and starts the container from a checkpoint; its stdio is that of the call.
    pub fn restore(&self, a: &RestoreArgs<'_>) -> Call {
        let args = |args: Args| {
            args.value("--image-path", a.image_path)
                .value("--work-path", a.work_path)
                .path("--parent-path", a.parent_path)
                .flag("--detach", true)
                .value("--pid-file", a.pid_file)
                .path("--console-socket", a.console_socket)
                .flag("--no-pivot", a.no_pivot_root)
                .flag("--no-subreaper", true)
                .value("--bundle", a.bundle)
        };
        self.call(Operation::Restore, args, a.id)
    }

    /// Lists the container's processes; [`super::ps::parse`] reads the answer.
    pub fn ps(&self, id: &str) -> Call {
        self.call(Operation::Ps, |args| args.value("--format", "json"), id)
    }

    /// Asks what the runtime can do. No container, hence neither state nor log.
    pub fn features(&self) -> Call {
        let mut call = self.plain(Operation::Features, "");
        call.globals.clear();
        call
    }
}

#[cfg(test)]
mod tests;
