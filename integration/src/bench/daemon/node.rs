//! One core daemon on a machine of its own as far as files go: roots, sockets, a namespace.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::bundle::make_rootfs;
use crate::e2e::{Footprint, Running, run};
use crate::target;

use super::super::hands;
use super::super::process::{Memory, memory};
use super::ground::Ground;
use super::grpc::Connection;
use super::probe;

/// How long a daemon may take to serve or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two looks: short against what is timed.
const PAUSE: Duration = Duration::from_micros(250);

/// A core daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Ours.
    Wherryd,
    /// Debian's, without the CRI plugin, which ours does not have.
    Containerd,
}

impl Core {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Wherryd, Self::Containerd];

    /// Its name in samples and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wherryd => "wherryd",
            Self::Containerd => "containerd",
        }
    }

    /// Its program; none when it is not built or not installed.
    pub(super) fn program(self) -> Option<PathBuf> {
        match self {
            Self::Wherryd => Some(target::daemon_binary()).filter(|path| path.is_file()),
            Self::Containerd => target::find_in_path("containerd"),
        }
    }

    /// Whether it can be measured; says so when it cannot.
    pub fn is_here(self) -> bool {
        let here = self.program().is_some();
        if !here {
            eprintln!("   {} is not here: left out", self.name());
        }
        here
    }
}

/// A kind of shims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shims {
    /// Those under measurement.
    Ours,
    /// Debian's.
    Go,
}

impl Shims {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ours, Self::Go];

    /// Its name in samples and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Go => "go",
        }
    }

    fn folder(self) -> PathBuf {
        match self {
            Self::Ours => target::shim_binary().with_file_name(""),
            Self::Go => "/usr/bin".into(),
        }
    }
}

/// A daemon with its folder. Dropping it ends it and everything that was started through it.
pub(super) struct Node {
    pub(super) core: Core,
    pub(super) shims: Shims,
    footprint: Footprint,
    daemon: Option<Running>,
    folder: PathBuf,
    /// What the daemon has in /run otherwise, if containers are run on it.
    _state: Option<Ground>,
    /// Removes the folder, unless it goes with the filesystem that it is on.
    _kept: Option<TempDir>,
}

impl Node {
    /// A daemon that does not run yet, on empty folders.
    pub(super) fn new(core: Core, shims: Shims) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("wherry-bench.")
            .tempdir()
            .expect("a folder for a daemon");
        let path = folder.path().to_owned();
        // runc's state is shared by all daemons of a machine: the namespace must be nobody else's.
        let suffix = path.extension().and_then(OsStr::to_str).expect("a suffix");
        let namespace = format!("bench-{}", suffix.to_lowercase());
        make_rootfs(&path.join("rootfs"));
        let mut node = Self::at(core, shims, path, &namespace);
        node._state = Some(Ground::memory_at(&node.folder.join("state")));
        node._kept = Some(folder);
        node
    }

    /// A daemon that does not run yet, for images and not for containers, in a folder of its own below
    /// `ground`; it stays there.
    pub(super) fn on(core: Core, ground: &Path) -> Self {
        let path = ground.join(core.name());
        fs::create_dir(&path).expect("a folder for a daemon");
        let namespace = format!("bench-{}", std::process::id());
        Self::at(core, Shims::Ours, path, &namespace)
    }

    fn at(core: Core, shims: Shims, path: PathBuf, namespace: &str) -> Self {
        let footprint = Footprint::new(&path, &path.join("c.sock"), namespace);
        let config = format!(
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = {:?}\n",
            path.join("opt")
        );
        fs::write(path.join("config.toml"), config).expect("write config.toml");
        Self {
            core,
            shims,
            footprint,
            daemon: None,
            folder: path,
            _state: None,
            _kept: None,
        }
    }

    /// A daemon that serves.
    pub(super) fn serving(core: Core, shims: Shims) -> Self {
        let mut node = Self::new(core, shims);
        node.start();
        node
    }

    /// Starts the daemon; milliseconds until it has answered its first call.
    pub(super) fn start(&mut self) -> f64 {
        let path = |name: &str| self.folder.join(name);
        let mut search = self.shims.folder().into_os_string();
        search.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let mut command = Command::new(self.core.program().expect("the daemon is here"));
        command
            .args(["--log-level", "warn", "--config"])
            .arg(path("config.toml"))
            .arg("--root")
            .arg(path("root"))
            .arg("--state")
            .arg(path("state"))
            .arg("--address")
            .arg(path("c.sock"))
            .env("PATH", search)
            .current_dir("/");
        let begin = Instant::now();
        let daemon = Running::start_logged(command, &path("daemon.log"));
        self.footprint.note_daemon(daemon.pid());
        self.daemon = Some(daemon);
        while !probe::answers(&path("c.sock")) {
            assert!(begin.elapsed() < PATIENCE, "{} serves", self.core.name());
            pause();
        }
        begin.elapsed().as_secs_f64() * 1e3
    }

    /// Ends the daemon as a service manager does.
    pub(super) fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            let _ = daemon.wait(PATIENCE);
        }
    }

    /// The daemon's pid.
    pub(super) fn pid(&self) -> i32 {
        self.daemon.as_ref().expect("the daemon runs").pid()
    }

    /// The daemon's memory.
    pub(super) fn memory(&self) -> Memory {
        memory(self.pid())
    }

    /// A connection to the daemon, for calls about its namespace.
    pub(super) fn connect(&self) -> Connection {
        let namespace = &self.footprint.namespace;
        Connection::open(&self.folder.join("c.sock"), namespace).expect("connect to the daemon")
    }

    /// The path of the root filesystem that all its containers share.
    pub(super) fn rootfs(&self) -> OsString {
        self.folder.join("rootfs").into_os_string()
    }

    /// `ctr` on this daemon.
    pub(super) fn ctr<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address")
            .arg(self.folder.join("c.sock"))
            .args(["--namespace", &self.footprint.namespace])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        ctr
    }

    /// `ctr run` with these flags of a container that runs `args` of busybox.
    pub(super) fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Command {
        self.footprint.note_id(id);
        let mut command = self.ctr(["run"]);
        command
            .args(flags)
            .arg("--rootfs")
            .arg(self.rootfs())
            .args([id, "/bin/busybox"])
            .args(args);
        command
    }

    /// Kills and removes containers.
    pub(super) fn remove(&self, ids: &[String]) {
        let removals = ids.iter().map(|id| self.ctr(["task", "rm", "-f", id]));
        hands::share(removals, well);
        let mut records = self.ctr(["container", "rm"]);
        records.args(ids);
        well(records);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("daemon.log"));
            eprintln!("{} said:\n{}", self.core.name(), log.unwrap_or_default());
        }
        // Seen once while the daemon lives, so that the sockets of all shims are known.
        let _ = self.footprint.shims();
        self.stop();
        self.footprint.wipe();
    }
}

/// Runs a command, which must end well.
pub(super) fn well(command: Command) {
    let _ = run(command).ok();
}

/// Waits a moment: the condition is looked at again by the caller.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness's own pause is longer than what is timed here"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The file of a program is on disk: pages of one that was just written count as its own.
pub(super) fn settle_binary(path: &Path) {
    fs::File::open(path)
        .and_then(|file| file.sync_all())
        .expect("write the program to disk");
}
