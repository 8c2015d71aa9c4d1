//! The `delete` action on what a killed shim leaves: a real container of runc and of crun, alive.

#![expect(
    clippy::disallowed_methods,
    reason = "a test process has no reaper, and waits for its own children"
)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests, where a failure is a panic and a skip is said aloud"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use protobuf::Message;
use task_api::task::DeleteResponse;

const V2: &str = env!("CARGO_BIN_EXE_containerd-shim-runc-v2");
const NAMESPACE: &str = "wherry-delete-test";

/// A running container without a shim.
struct Orphan {
    dir: tempfile::TempDir,
    id: String,
    pid: i32,
    runtime: String,
}

impl Orphan {
    /// A container of `runtime`; `None`, said aloud, where that or busybox is not installed.
    fn new(runtime: &str) -> Option<Self> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|p| Path::new(p).exists());
        let (Some(busybox), true) = (busybox, Path::new(runtime).exists()) else {
            eprintln!("SKIPPED: {runtime} or busybox is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let name = Path::new(runtime).file_name().unwrap().to_str().unwrap();
        let id = format!("{name}-{}-{}", std::process::id(), dir.path().display())
            .replace(['/', '.'], "-");
        let bundle = dir.path().join(&id);
        let rootfs = bundle.join("rootfs");
        std::fs::create_dir_all(&rootfs).unwrap();
        // Two mounts, one on the other, so that the unmount has to go down.
        mount(&["-t", "tmpfs", "tmpfs", rootfs.to_str().unwrap()]);
        std::fs::create_dir_all(rootfs.join("bin")).unwrap();
        for name in ["proc", "dev", "sys", "data"] {
            std::fs::create_dir(rootfs.join(name)).unwrap();
        }
        mount(&[
            "-t",
            "tmpfs",
            "tmpfs",
            rootfs.join("data").to_str().unwrap(),
        ]);
        std::fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
        run(Command::new(runtime).arg("spec").current_dir(&bundle));
        let config = bundle.join("config.json");
        let mut spec: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/bin/busybox", "sleep", "1000"]);
        spec["linux"]["cgroupsPath"] = format!("/{NAMESPACE}/{id}").into();
        std::fs::write(&config, spec.to_string()).unwrap();
        let root = dir.path().join("state");
        std::fs::write(
            bundle.join("options.json"),
            serde_json::json!({ "root": root.to_str().unwrap() }).to_string(),
        )
        .unwrap();
        std::fs::write(bundle.join("runtime"), runtime).unwrap();
        let mut orphan = Self {
            dir,
            id,
            pid: 0,
            runtime: runtime.to_owned(),
        };
        let mut create = orphan.command();
        create
            .args(["create", "--bundle"])
            .arg(&bundle)
            .arg("--pid-file");
        create.args([bundle.join("init.pid").to_str().unwrap(), &orphan.id]);
        let output = attempt(&mut create);
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("hybrid mode not supported") {
            eprintln!("SKIPPED: {runtime} on this machine: {said}");
            return None;
        }
        assert!(output.status.success(), "{create:?}: {output:?}");
        run(orphan.command().args(["start", &orphan.id]));
        orphan.pid = std::fs::read_to_string(bundle.join("init.pid"))
            .unwrap()
            .parse()
            .unwrap();
        Some(orphan)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command
            .arg("--root")
            .arg(self.dir.path().join("state").join(NAMESPACE));
        command
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join(&self.id)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state").join(NAMESPACE).join(&self.id)
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let roots = roots();
        let dirs = roots
            .into_iter()
            .map(|root| root.join(NAMESPACE).join(&self.id));
        dirs.filter(|dir| dir.exists()).collect()
    }

    fn mounts(&self) -> usize {
        sys::mount::mounts_below(&self.bundle()).unwrap().len()
    }

    /// Runs our `delete` and checks that nothing is left.
    fn delete(&self) -> Output {
        assert!(
            !self.cgroups().is_empty() && self.mounts() == 2,
            "the bed is not made"
        );
        let mut command = Command::new(V2);
        command.args([
            "-namespace",
            NAMESPACE,
            "-id",
            &self.id,
            "-address",
            "/x",
            "-bundle",
        ]);
        command
            .arg(self.bundle())
            .arg("delete")
            .current_dir(self.bundle());
        let output = run(&mut command);
        let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
        assert_eq!(
            (response.pid, response.exit_status),
            (self.pid.unsigned_abs(), 137)
        );
        assert!(
            !self.state().exists(),
            "{} is left: {output:?}",
            self.state().display()
        );
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "{output:?}");
        assert_eq!(self.mounts(), 0, "{output:?}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_alive(self.pid) {
            assert!(
                Instant::now() < deadline,
                "process {} lives: {output:?}",
                self.pid
            );
            std::thread::yield_now();
        }
        output
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if self.pid > 0 && is_alive(self.pid) {
            let _ = sys::pidfd::kill(self.pid, libc::SIGKILL);
        }
        let _ = self
            .command()
            .args(["delete", "--force", &self.id])
            .stderr(Stdio::null())
            .status();
        let _ = sys::mount::unmount_recursive(&self.bundle());
        for root in roots() {
            let _ = std::fs::remove_dir(root.join(NAMESPACE).join(&self.id));
            let _ = std::fs::remove_dir(root.join(NAMESPACE));
        }
    }
}

/// The roots of all hierarchies, that of cgroup2 on a hybrid machine included.
fn roots() -> Vec<PathBuf> {
    let mut roots = shim_common::start::shim_cgroup::hierarchies().unwrap();
    roots.push("/sys/fs/cgroup/unified".into());
    roots
}

/// A process that is there and no zombie: whose child the container is depends on the machine.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn mount(args: &[&str]) {
    run(Command::new("mount").args(args));
}

/// Runs a command that has to succeed.
fn run(command: &mut Command) -> Output {
    let output = attempt(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Runs a command whose children may keep its streams: these go to files, not to pipes.
fn attempt(command: &mut Command) -> Output {
    let file = || tempfile::tempfile().unwrap();
    let (out, err) = (file(), file());
    let status = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .status()
        .unwrap();
    let read = |mut file: std::fs::File| {
        use std::io::{Read, Seek};
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    Output {
        status,
        stdout: read(out),
        stderr: read(err),
    }
}

#[test]
fn a_live_container_of_runc_is_removed_whole() {
    if let Some(orphan) = Orphan::new("/usr/sbin/runc") {
        assert_eq!(orphan.delete().stderr, b"");
        // Once more, as containerd may after a restart.
        let again = Command::new(V2)
            .args(["-namespace", NAMESPACE, "-id", &orphan.id, "delete"])
            .current_dir(orphan.bundle())
            .output()
            .unwrap();
        assert!(
            again.status.success() && again.stderr.is_empty(),
            "{again:?}"
        );
    }
}

#[test]
fn a_live_container_of_crun_is_removed_whole() {
    if let Some(orphan) = Orphan::new("/usr/bin/crun") {
        orphan.delete();
    }
}

#[test]
fn what_the_runtime_does_not_know_any_more_is_killed_by_its_cgroup() {
    if let Some(orphan) = Orphan::new("/usr/sbin/runc") {
        std::fs::remove_dir_all(orphan.state()).unwrap();
        orphan.delete();
    }
}
