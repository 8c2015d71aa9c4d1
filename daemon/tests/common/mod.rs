//! A daemon of a test's own: private root, state and socket, driven from outside with Debian's
//! `ctr`. The shims are those in `SHIM_DIR` (our release build unless it says otherwise), or
//! Debian's Go shims. Needs root, `runc`, `ctr` and `busybox`.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run programs and wait for them"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be set up ends a test"
)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A part of the configuration: what nobody holds stays until a client asks for a collection. When a
/// daemon collects by itself, soon after its start for one, is none of most tests' business.
pub const PATIENT: &str =
    "[plugins.\"io.containerd.gc.v1.scheduler\"]\nmutation_threshold = 0\nstartup_delay = \"1h\"\n";

/// Which shims a daemon finds first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shims {
    /// Those of this project.
    Ours,
    /// Debian's.
    Go,
}

impl Shims {
    fn folder(self) -> PathBuf {
        if self == Self::Go {
            return "/usr/bin".into();
        }
        if let Some(folder) = std::env::var_os("SHIM_DIR") {
            return folder.into();
        }
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let builds = ["x86_64-unknown-linux-gnu/release", "release", "debug"];
        builds
            .iter()
            .map(|build| target.join(build))
            .find(|folder| folder.join("containerd-shim-runc-v2").exists())
            .expect("no shim is built: cargo build -p wherry-shim-runc, or set SHIM_DIR")
    }
}

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Its stdout, after seeing that it ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Waits until `holds`, and fails with `what` after [`LIMIT`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Runs a program to its end; one that hangs is killed and fails the test.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let reader = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = reader(Box::new(child.stdout.take().unwrap()));
    let stderr = reader(Box::new(child.stderr.take().unwrap()));
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let said = (stdout.join().unwrap(), stderr.join().unwrap());
            panic!("{command:?} hangs; it said {said:?}");
        }
        thread::park_timeout(Duration::from_millis(5));
    };
    Ran {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// A daemon with everything that belongs to it.
pub struct Bed {
    pub dir: tempfile::TempDir,
    /// A namespace nobody else uses: runc's state is shared by all daemons of a machine.
    pub namespace: String,
    /// The root folder.
    pub root: PathBuf,
    /// The daemon's program: of this build, until it is set.
    pub program: PathBuf,
    shims: Shims,
    daemon: Option<Child>,
}

impl Bed {
    /// Starts a daemon on empty folders and waits until it serves.
    pub fn new(shims: Shims) -> Self {
        Self::with_config(shims, "version = 2\n")
    }

    /// As [`Bed::new`], with what `config` says.
    pub fn with_config(shims: Shims, config: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("wd").tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", bin.join("sh")).unwrap();
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let namespace = format!("wd{}-{count}", std::process::id());
        let mut bed = Self {
            root: dir.path().join("root"),
            program: env!("CARGO_BIN_EXE_wherryd").into(),
            dir,
            namespace,
            shims,
            daemon: None,
        };
        bed.start();
        bed
    }

    pub fn address(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    pub fn rootfs(&self) -> String {
        self.dir.path().join("rootfs").to_str().unwrap().to_owned()
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir
            .path()
            .join("state/io.containerd.runtime.v2.task")
            .join(&self.namespace)
            .join(id)
    }

    /// A shim that the daemon finds first.
    pub fn shim(&self, name: &str) -> PathBuf {
        self.shims.folder().join(name)
    }

    /// Where a daemon looks for shims: those of the bed before all others.
    fn path(&self) -> std::ffi::OsString {
        let mut path = self.shims.folder().into_os_string();
        path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        path
    }

    /// The command that serves this bed.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.dir.path().join("config.toml"))
            .arg("--root")
            .arg(&self.root)
            .arg("--state")
            .arg(self.dir.path().join("state"))
            .arg("--address")
            .arg(self.address())
            .env("PATH", self.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon (again) and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        self.daemon = Some(self.command().stderr(log).spawn().unwrap());
        eventually("the daemon answers", || {
            self.ctr(&["version"]).code == Some(0)
        });
    }

    /// Debian's containerd in place of the daemon: same address, same folders. Its log is lost.
    pub fn containerd(&self) -> Background {
        let config = self.dir.path().join("containerd.toml");
        fs::write(
            &config,
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )
        .unwrap();
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "containerd",
                "--log-level",
                "error",
                "--config",
            ])
            .arg(&config)
            .arg("--root")
            .arg(self.dir.path().join("root"))
            .arg("--state")
            .arg(self.dir.path().join("state"))
            .arg("--address")
            .arg(self.address())
            .env("PATH", self.path())
            .stderr(Stdio::null());
        let daemon = background(&mut command, &self.dir.path().join("containerd.log"));
        eventually("containerd answers", || {
            let version = self.ctr(&["version"]);
            version.code == Some(0) && !version.stdout.contains("wherry")
        });
        daemon
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Ends the daemon as a service manager does.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        run(Command::new("kill").arg(daemon.id().to_string())).ok();
        eventually("the daemon ends", || daemon.try_wait().unwrap().is_some());
    }

    /// Sends the daemon a signal, by its name without `SIG`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        run(Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()])).ok();
    }

    /// Waits until the daemon, having been told to end, has done so, and answers its exit code.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        Background(self.daemon.take()).wait()
    }

    /// Runs `ctr` against the daemon, in the bed's namespace.
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Ran {
        run(self.ctr_command().args(arguments))
    }

    pub fn ctr_command(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.address());
        command.args(["-n", &self.namespace]);
        command
    }

    /// A container in the background that waits for its end.
    #[track_caller]
    pub fn run_detached(&self, id: &str) {
        let script = "trap 'exit 9' TERM; while :; do /bin/busybox sleep 0.1; done";
        let rootfs = self.rootfs();
        self.ctr(&[
            "run", "-d", "--rootfs", &rootfs, id, "/bin/sh", "-c", script,
        ])
        .ok();
    }

    /// The line of `ctr task ls` about a container: pid and status.
    pub fn task(&self, id: &str) -> Option<(i32, String)> {
        let table = self.ctr(&["task", "ls"]).ok();
        table.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [name, pid, status] if *name == id => {
                    Some((pid.parse().unwrap(), (*status).to_owned()))
                }
                _ => None,
            }
        })
    }

    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            self.task(id).is_some_and(|task| task.1 == status)
        });
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // What a containerd left running is removed by `ctr` only where its records are.
        let theirs = "root/io.containerd.metadata.v1.bolt/meta.db";
        if self.dir.path().join(theirs).exists() {
            if let Some(mut daemon) = self.daemon.take() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            run(self.command().arg("import"));
        }
        if self.daemon.is_none() {
            self.start();
        }
        for id in self.ctr(&["task", "ls", "-q"]).stdout.lines() {
            self.ctr(&["task", "rm", "-f", id]);
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // What runc and cgroups leave of a namespace: empty folders.
        let _ = fs::remove_dir(Path::new("/run/containerd/runc").join(&self.namespace));
        for controller in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = fs::remove_dir(controller.path().join(&self.namespace));
        }
        if thread::panicking() {
            eprintln!("the daemon said:\n{}", self.log());
        }
    }
}

/// A program that runs beside the test, until it is stopped or dropped.
pub struct Background(Option<Child>);

/// Starts a program with its stdout into a file.
pub fn background(command: &mut Command, stdout: &Path) -> Background {
    let stdout = fs::File::create(stdout).unwrap();
    let child = command.stdin(Stdio::null()).stdout(stdout).spawn().unwrap();
    Background(Some(child))
}

impl Background {
    /// A program that was started already.
    pub fn of(child: Child) -> Self {
        Self(Some(child))
    }

    /// Waits for its end and answers its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let child = self.0.as_mut().expect("it runs");
        let mut code = None;
        eventually("the program ends", || match child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        self.0 = None;
        code
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a program whose output nobody reads.
pub fn quietly(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for named programs and answers the names of those that ended well.
#[track_caller]
pub fn those_that_end_well(programs: Vec<(String, Child)>) -> Vec<String> {
    programs
        .into_iter()
        .filter_map(|(name, child)| {
            let ended = Background(Some(child)).wait();
            (ended == Some(0)).then_some(name)
        })
        .collect()
}
