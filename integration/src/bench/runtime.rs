//! The bare runtime: the same calls of runc or crun that a shim makes, made by the harness.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::bed::Bed;
use crate::bundle::{Bundle, Spec};
use crate::target;

/// The runtimes that work here: runc, and crun, whose own share is smaller. One that does not is
/// left out, which is said.
pub fn usable(bed: &Bed) -> Vec<(&'static str, PathBuf)> {
    let mut list = Vec::new();
    for name in ["runc", "crun"] {
        let Some(path) = target::find_in_path(name) else {
            eprintln!("   {name} is not installed: left out");
            continue;
        };
        let probe = Bare::new(bed, &path, &format!("probe-{name}"), &Spec::sleeper());
        match probe.try_run(&probe.create_args()) {
            Ok(()) => {
                probe.end();
                list.push((name, path));
            }
            Err(reason) => eprintln!("   {name} does not work here: left out: {reason}"),
        }
    }
    list
}

/// The quickest runtime that works, for what asks only after the shim.
pub fn quickest(bed: &Bed) -> PathBuf {
    let list = usable(bed);
    list.last().expect("a runtime that works").1.clone()
}

/// A container that no shim stands beside.
#[derive(Debug)]
pub struct Bare {
    /// The bundle.
    pub bundle: Bundle,
    runtime: PathBuf,
    root: PathBuf,
}

impl Bare {
    /// Writes the bundle.
    pub fn new(bed: &Bed, runtime: &Path, id: &str, spec: &Spec) -> Self {
        let bundle = bed.bundle(id, spec);
        Self {
            bundle,
            runtime: runtime.to_owned(),
            // Where the bed looks for what is left behind.
            root: bed.runtime_root().join(bed.namespace()),
        }
    }

    /// Runs one command to its end, with the global flags that shims give.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, args: &[&str]) {
        self.try_run(args)
            .unwrap_or_else(|e| panic!("{} {args:?}: {e}", self.runtime.display()));
    }

    /// As [`Self::run`], for what may fail; the error is the runtime's log.
    fn try_run<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<(), String> {
        let status = Command::new(&self.runtime)
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(self.bundle.path.join("log.json"))
            .args(["--log-format", "json"])
            .args(args)
            .current_dir(&self.bundle.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap_or_else(|e| panic!("run {}: {e}", self.runtime.display()));
        if status.success() {
            return Ok(());
        }
        Err(fs::read_to_string(self.bundle.path.join("log.json")).unwrap_or_default())
    }

    /// `create`.
    pub fn create(&self) {
        let args = self.create_args();
        self.run(&args.each_ref().map(String::as_str));
    }

    fn create_args(&self) -> [String; 6] {
        [
            "create".to_owned(),
            "--bundle".to_owned(),
            self.bundle.path.display().to_string(),
            "--pid-file".to_owned(),
            self.file("init.pid"),
            self.bundle.id.clone(),
        ]
    }

    /// `exec --detach` of `true`; returns once it was started.
    pub fn exec(&self, exec: &str) {
        let (process, pid_file) = (self.file("process.json"), self.file(&format!("{exec}.pid")));
        let spec = Spec::new(&["true"]);
        fs::write(&process, spec.process().to_string()).expect("write the process");
        let id = &self.bundle.id;
        self.run(&[
            "exec",
            "--process",
            &process,
            "--detach",
            "--pid-file",
            &pid_file,
            id,
        ]);
    }

    /// Waits for the end of a process whose pid the runtime wrote: orphans come to the harness.
    pub fn collect(&self, pid_file: &str) {
        let text = fs::read_to_string(self.file(pid_file)).expect("the runtime wrote the pid");
        let pid = text.trim().parse().expect("a pid");
        // An error says that it was collected already.
        let _ = waitpid(Pid::from_raw(pid), None);
    }

    /// Kills the container and removes everything of it.
    pub fn end(&self) {
        self.run(&["kill", &self.bundle.id, "9"]);
        self.collect("init.pid");
        self.run(&["delete", &self.bundle.id]);
        fs::remove_dir_all(&self.bundle.path).expect("remove the bundle");
    }

    fn file(&self, name: &str) -> String {
        self.bundle.path.join(name).display().to_string()
    }
}
