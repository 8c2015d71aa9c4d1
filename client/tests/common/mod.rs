//! Daemons of a test's own, wherryd from this tree and Debian's containerd, each with private
//! folders, driven by the `wherry` under test. Needs root, `runc` and `busybox`.
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

pub mod images;
mod terminal;

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Makes a test of each function, for each engine.
#[allow(unused_macros, reason = "each test binary uses its part")]
macro_rules! on_both_engines {
    ($($name:ident)*) => {
        mod wherryd {
            $(#[test]
            fn $name() {
                super::$name(&mut super::Bed::new(crate::common::Engine::Wherryd));
            })*
        }
        mod containerd {
            $(#[test]
            fn $name() {
                super::$name(&mut super::Bed::new(crate::common::Engine::Containerd));
            })*
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use on_both_engines;

#[allow(unused_imports, reason = "each test binary uses its part")]
pub use terminal::Terminal;

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What serves the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The daemon of this tree, with the shims of this tree.
    Wherryd,
    /// Debian's containerd, with its Go shims.
    Containerd,
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
        self.ended(0)
    }

    /// Its stdout, after seeing that it ended with this code.
    #[track_caller]
    pub fn ended(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its stderr, after seeing that it failed with this code, and not by a panic.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
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

/// A program that runs, with its output collected.
pub struct Running {
    pub child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
}

fn collected(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = collected(child.stdout.take().unwrap());
        let stderr = collected(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        run(Command::new("kill").args(["-s", name, &pid])).ok();
    }

    /// Waits for its end; one that hangs is killed and fails the test.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        let status = wait(&mut self.child);
        let hangs = status.is_none();
        let ran = Ran {
            code: status.and_then(|status| status.code()),
            stdout: self.stdout.join().unwrap(),
            stderr: self.stderr.join().unwrap(),
        };
        assert!(!hangs, "it hangs: {ran:?}");
        ran
    }
}

/// Waits for a child within the limit, or kills it.
pub fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a program to its end, with nothing on its stdin.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    Running::start(command.stdin(Stdio::null())).end()
}

/// The `wherry` under test, with nothing of the caller's environment that would tell it something.
pub fn wherry() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wherry"));
    for variable in [
        "CONTAINERD_ADDRESS",
        "CONTAINERD_NAMESPACE",
        "CONTAINERD_SNAPSHOTTER",
        "NO_COLOR",
    ] {
        command.env_remove(variable);
    }
    command
}

/// A daemon with everything that belongs to it.
pub struct Bed {
    pub dir: tempfile::TempDir,
    /// A namespace nobody else uses: runc's state is shared by all daemons of a machine.
    pub namespace: String,
    pub engine: Engine,
    daemon: Option<Child>,
}

impl Bed {
    /// Starts a daemon on empty folders and waits until it serves.
    pub fn new(engine: Engine) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("wc").tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for folder in ["bin", "etc", "mnt", "proc", "sys", "dev", "run", "tmp"] {
            fs::create_dir_all(rootfs.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        let applets = "sh cat echo env head hostname id ls pwd sleep stty touch tr wc yes dd";
        for applet in applets.split(' ') {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "app:x:1000:1001::/:/bin/sh\n").unwrap();
        let mut bed = Self {
            dir,
            namespace: format!("wc{}-{count}", std::process::id()),
            engine,
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

    fn daemon_command(&self) -> Command {
        let target = Path::new(env!("CARGO_BIN_EXE_wherry")).parent().unwrap();
        let (program, shims) = match self.engine {
            Engine::Containerd => (PathBuf::from("containerd"), PathBuf::from("/usr/bin")),
            Engine::Wherryd => {
                let daemon = std::env::var_os("WHERRYD")
                    .map_or_else(|| target.join("wherryd"), PathBuf::from);
                assert!(
                    daemon.exists(),
                    "{} is not built: cargo build -p wherry-daemon",
                    daemon.display()
                );
                let shims = std::env::var_os("SHIM_DIR").map_or_else(
                    || target.join("../x86_64-unknown-linux-gnu/release"),
                    PathBuf::from,
                );
                (daemon, shims)
            }
        };
        let mut path = shims.into_os_string();
        path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        let config = self.dir.path().join("config.toml");
        let text = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write(&config, text).unwrap();
        // However the test ends, its daemon does.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .arg("--config")
            .arg(config)
            .arg("--root")
            .arg(self.dir.path().join("root"))
            .arg("--state")
            .arg(self.dir.path().join("state"))
            .arg("--address")
            .arg(self.address())
            .env("PATH", path)
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
        self.daemon = Some(self.daemon_command().stderr(log).spawn().unwrap());
        eventually("the daemon answers", || {
            self.wherry(&["version"]).code == Some(0)
        });
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// The `wherry` under test, told of this daemon.
    pub fn command(&self) -> Command {
        let mut command = wherry();
        command.arg("-a").arg(self.address());
        command.args(["-n", &self.namespace]);
        command
    }

    /// Runs it with nothing on its stdin.
    #[track_caller]
    pub fn wherry(&self, arguments: &[&str]) -> Ran {
        run(self.command().args(arguments))
    }

    /// `wherry run --rootfs ...` with more flags and the command.
    pub fn run_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["run", "--rootfs", &self.rootfs()]);
        command.args(arguments);
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.run_command(arguments))
    }

    /// Debian's `ctr` on the same daemon and namespace.
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.address());
        run(command.args(["-n", &self.namespace]).args(arguments))
    }

    /// A file of the test's own.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// All containers, as `ps` tells them to programs.
    #[track_caller]
    pub fn all(&self) -> Vec<serde_json::Value> {
        let text = self.wherry(&["ps", "-a", "--format", "json"]).ok();
        serde_json::from_str(&text).unwrap()
    }

    /// What one container does.
    #[track_caller]
    pub fn status(&self, id: &str) -> Option<String> {
        let all = self.all();
        let found = all.iter().find(|container| container["id"] == id);
        found.map(|container| container["status"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            self.status(id).as_deref() == Some(status)
        });
    }

    /// Pid of a container's first process.
    #[track_caller]
    pub fn pid(&self, id: &str) -> u64 {
        let all = self.all();
        let found = all.iter().find(|container| container["id"] == id);
        found.expect("it is there")["pid"]
            .as_u64()
            .expect("it has a pid")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            self.start();
        }
        for id in self.wherry(&["ps", "-aq"]).stdout.lines() {
            self.wherry(&["rm", "-f", id]);
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // What runc, cgroups and overlays leave: empty folders.
        let _ = fs::remove_dir(Path::new("/run/containerd/runc").join(&self.namespace));
        let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        for controller in controllers.flatten() {
            let _ = fs::remove_dir(controller.path().join(&self.namespace));
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let from = log.lines().count().saturating_sub(20);
            let end: Vec<&str> = log.lines().skip(from).collect();
            eprintln!("the daemon said at last:\n{}", end.join("\n"));
        }
    }
}
