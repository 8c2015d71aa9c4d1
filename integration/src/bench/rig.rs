//! One shim under measurement, driven as containerd drives it, with the time each step takes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use std::os::unix::fs::OpenOptionsExt as _;

use crate::bed::Bed;
use crate::bundle::{Bundle, Spec};
use crate::client::{CallError, TASK_V2, TaskClient};
use crate::shim::{Reply, StartRequest, socket_path};
use crate::stdio::make_fifo;
use crate::wait::{SHORT, eventually, holds};
use crate::{delete, host, target};

/// The name of our shim in samples and tables.
pub const OURS: &str = "ours";
/// The name of Debian's Go shim.
pub const GO: &str = "go-v2";
/// The name of Debian's Go shim for one container each.
pub const GO_V1: &str = "go-v1";
/// The name of the runtime without any shim.
pub const BARE: &str = "bare";

/// The rest before a life begins.
pub(super) const REST: Duration = Duration::from_millis(12);

/// Lets time pass: the only condition is the time itself.
pub(super) fn pass(time: Duration) {
    holds(time, || false);
}

/// A shim to measure.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name in samples and tables.
    pub name: &'static str,
    /// Its program.
    pub binary: PathBuf,
}

/// The shims that are here: ours, and Go's as far as they are installed.
pub fn subjects() -> Vec<Subject> {
    let mut list = vec![Subject {
        name: OURS,
        binary: target::shim_binary(),
    }];
    for (name, path) in [
        (GO, "/usr/bin/containerd-shim-runc-v2"),
        (GO_V1, "/usr/bin/containerd-shim-runc-v1"),
    ] {
        if Path::new(path).exists() && list[0].binary != Path::new(path) {
            let binary = path.into();
            list.push(Subject { name, binary });
        }
    }
    list
}

/// Milliseconds that `work` takes, and what it gives.
pub fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = Instant::now();
    let value = work();
    (begin.elapsed().as_secs_f64() * 1e3, value)
}

/// A container's bundle and its shim.
#[derive(Debug)]
pub struct Rig {
    /// The bundle.
    pub bundle: Bundle,
    /// The task service.
    pub task: TaskClient,
    /// The pid of the served shim.
    pub pid: i32,
    /// Milliseconds from running `start` to the end of its output.
    pub start_ms: f64,
    request: StartRequest,
    held: Vec<File>,
}

/// A bundle whose shim was not started yet.
#[derive(Debug)]
pub struct Prepared {
    bundle: Bundle,
    request: StartRequest,
    log: File,
}

impl Prepared {
    /// Writes a bundle that runs under `runtime`.
    pub fn new(bed: &Bed, subject: &Subject, runtime: &Path, id: &str, spec: &Spec) -> Self {
        let mut bundle = bed.bundle(id, spec);
        bundle.options.binary_name = runtime.display().to_string();
        let mut request = bed.start_request(&bundle);
        request.binary.clone_from(&subject.binary);
        // As containerd holds it; so little is logged that nobody needs to read.
        let log = hold(&bundle.path.join("log"));
        Self {
            bundle,
            request,
            log,
        }
    }

    /// Starts its shim.
    ///
    /// # Panics
    /// When the shim does not start.
    pub fn start(self) -> Rig {
        let (start_ms, outcome) = timed(|| self.request.run());
        let said = String::from_utf8_lossy(&outcome.output);
        let binary = self.request.binary.display();
        assert_eq!(outcome.code, Some(0), "{binary} start: {said}");
        let socket = socket_path(Reply::parse(&outcome.output).address());
        let task = TaskClient::connect(&socket, TASK_V2).expect("connect to the shim");
        let connected = task
            .connect_task(&self.bundle.id)
            .expect("Connect never fails");
        Rig {
            bundle: self.bundle,
            task,
            pid: i32::try_from(connected.shim_pid).expect("a pid"),
            start_ms,
            request: self.request,
            held: vec![self.log],
        }
    }
}

/// Opens a FIFO for both directions, so that it always has a reader.
fn hold(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .expect("open a FIFO")
}

impl Rig {
    /// Writes a bundle that runs under `runtime` and starts its shim.
    ///
    /// # Panics
    /// When the shim does not start.
    pub fn start(bed: &Bed, subject: &Subject, runtime: &Path, id: &str, spec: &Spec) -> Self {
        let prepared = Prepared::new(bed, subject, runtime, id, spec);
        // Who has just worked hard waits longest for a processor that others want too: what is
        // timed next begins after a rest, as in a daemon that was asked something.
        pass(REST);
        prepared.start()
    }

    /// A container that runs and has FIFOs for its output that somebody holds open and nobody
    /// reads: for one that writes nothing.
    pub fn quiet(bed: &Bed, subject: &Subject, runtime: &Path, id: &str, spec: &Spec) -> Self {
        let mut rig = Prepared::new(bed, subject, runtime, id, spec).start();
        let [out, err] = ["out", "err"].map(|name| {
            let path = bed.fifo(&format!("{id}.{name}"));
            make_fifo(&path);
            rig.held.push(hold(&path));
            path.display().to_string()
        });
        let create = rig.bundle.create_with("", &out, &err);
        rig.task.create(&create).expect("Create");
        rig.task.start(id, "").expect("Start");
        rig
    }

    /// A container that runs, with FIFOs for its output whose reader throws everything away.
    pub fn running(bed: &Bed, subject: &Subject, runtime: &Path, id: &str) -> Self {
        let rig = Self::start(bed, subject, runtime, id, &Spec::sleeper());
        let create = rig.bundle.create_with("", &bed.drain(), &bed.drain());
        rig.task.create(&create).expect("Create");
        rig.task.start(id, "").expect("Start");
        rig
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// Runs an exec of `true` to its end and deletes it; milliseconds of Exec and Start together.
    pub fn exec(&self, exec: &str) -> f64 {
        let request = self.bundle.exec(exec, &["true"]);
        let (ms, ()) = timed(|| {
            self.task.exec(&request).expect("Exec");
            self.task.start(self.id(), exec).expect("Start of an exec");
        });
        self.task.wait(self.id(), exec).expect("Wait of an exec");
        self.task
            .delete(self.id(), exec)
            .expect("Delete of an exec");
        ms
    }

    /// Shuts the empty shim down and waits for its end.
    pub fn shut(&self) {
        match self.task.shutdown(self.id()) {
            // A shim may end before its answer has left.
            Ok(_) | Err(CallError::Closed) => {}
            Err(error) => panic!("Shutdown: {error}"),
        }
        eventually(SHORT, "the shim ends", || !host::alive(self.pid));
    }

    /// Runs the `delete` action, which must succeed, and removes the bundle; milliseconds of the
    /// action.
    pub fn remove(&self, subject: &Subject) -> f64 {
        let (ms, outcome) = timed(|| delete::run(&self.request));
        // Go's v1 fails when the shim has removed its socket itself.
        if subject.name != GO_V1 {
            outcome.response();
        }
        std::fs::remove_dir_all(&self.bundle.path).expect("remove the bundle");
        ms
    }

    /// Kills the container and removes everything of it.
    pub fn end(&self, subject: &Subject) {
        // Refused when it has ended already.
        let _ = self.task.kill(self.id(), "", 9, true);
        self.task.wait(self.id(), "").expect("Wait");
        self.task.delete(self.id(), "").expect("Delete");
        self.shut();
        self.remove(subject);
    }
}
