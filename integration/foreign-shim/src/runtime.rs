//! runc as a child of the shim, collected by the crate's reaper.

use std::fs::{OpenOptions, remove_file};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containerd_shim::Error;
use containerd_shim::api::Options;
use containerd_shim::monitor::{Topic, monitor_subscribe, wait_pid};

/// Where the states of containers are unless the options say otherwise.
const ROOT: &str = "/run/containerd/foreign";

/// The runtime of one bundle.
pub struct Runtime {
    program: String,
    root: PathBuf,
    bundle: PathBuf,
}

impl Runtime {
    /// The runtime that `options` ask for, with the namespace's own folder of states.
    pub fn new(namespace: &str, options: &Options, bundle: &Path) -> Self {
        let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
        Self {
            program: or(&options.binary_name, "runc"),
            root: Path::new(&or(&options.root, ROOT)).join(namespace),
            bundle: bundle.to_owned(),
        }
    }

    /// Makes the container and returns the pid of its first process, which waits for `start`.
    pub fn create(&self, id: &str, [stdin, stdout, stderr]: [&str; 3]) -> Result<i32, Error> {
        let pid_file = self.bundle.join("init.pid");
        let mut command = self.command("create");
        command.arg("--bundle").arg(&self.bundle);
        command.arg("--pid-file").arg(&pid_file).arg(id);
        command
            .stdin(input(stdin)?)
            .stdout(output(stdout)?)
            .stderr(output(stderr)?);
        self.run(command)?;
        containerd_shim::util::read_pid_from_file(&pid_file)
    }

    /// Lets the first process go on to its program.
    pub fn start(&self, id: &str) -> Result<(), Error> {
        let mut command = self.command("start");
        command.arg(id);
        self.run(command)
    }

    /// Sends a signal to the first process, or to all of the container.
    pub fn kill(&self, id: &str, signal: u32, all: bool) -> Result<(), Error> {
        let mut command = self.command("kill");
        command.args(all.then_some("--all"));
        command.arg(id).arg(signal.to_string());
        self.run(command)
    }

    /// Removes the container, running or not; one that is not there is no error.
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        let mut command = self.command("delete");
        command.args(["--force", id]);
        self.run(command)
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("foreign.log")
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(self.log()).arg(action);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs a command to its end. What it wrote to its log is the error when it fails.
    fn run(&self, mut command: Command) -> Result<(), Error> {
        let _ = remove_file(self.log());
        // Before the spawn: the exit may come at once, and it is told but once.
        let exits = monitor_subscribe(Topic::Pid)?;
        let failed = |error| Error::IoError {
            context: format!("run {}", self.program),
            err: error,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the rule is for our shims; the crate's reaper collects this child"
        )]
        let child = command.spawn().map_err(failed)?;
        #[expect(clippy::cast_possible_wrap, reason = "pids are positive and small")]
        let code = wait_pid(child.id() as i32, exits);
        if code == 0 {
            return Ok(());
        }
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        // Words of both runtimes for a container whose process has ended.
        if text.contains("not running") || text.contains("already finished") {
            return Err(Error::NotFoundError("process already finished".to_owned()));
        }
        Err(Error::Other(format!(
            "{} ended with {code}: {text}",
            self.program
        )))
    }
}

/// Standard input: a FIFO whose writer is waited for, or nothing.
fn input(path: &str) -> Result<Stdio, Error> {
    open(path, OpenOptions::new().read(true))
}

/// An output: a FIFO of the client or a file to append to, or nothing.
fn output(path: &str) -> Result<Stdio, Error> {
    let fifo = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_fifo());
    // A FIFO is opened for reading too, so that neither this waits for the client nor the
    // container is ended by its absence.
    open(
        path,
        OpenOptions::new().read(fifo).write(true).append(!fifo),
    )
}

fn open(path: &str, how: &OpenOptions) -> Result<Stdio, Error> {
    if path.is_empty() {
        return Ok(Stdio::null());
    }
    how.open(path)
        .map(Stdio::from)
        .map_err(|error| Error::IoError {
            context: format!("open {path}"),
            err: error,
        })
}
