//! Docker 20.10, unmodified, on the daemon: its engine talks to our socket as to containerd's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{Background, Bed, Ran, Shims, eventually, run};

/// An engine with everything below the bed's folder.
struct Docker {
    folder: PathBuf,
    _engine: Background,
}

impl Docker {
    fn new(bed: &Bed) -> Self {
        let folder = bed.dir.path().to_owned();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        std::fs::write(path("daemon.json"), "{}").unwrap();
        let log = std::fs::File::create(path("dockerd.log")).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "dockerd"])
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .arg(format!("--config-file={}", path("daemon.json")))
            .arg(format!("--data-root={}", path("docker")))
            .arg(format!("--exec-root={}", path("exec")))
            .arg(format!("--pidfile={}", path("docker.pid")))
            .arg(format!("--host=unix://{}", path("d.sock")))
            .arg(format!("--containerd={}", bed.address().display()))
            .arg(format!("--containerd-namespace={}", bed.namespace))
            .arg(format!(
                "--containerd-plugins-namespace={}-plugins",
                bed.namespace
            ))
            .arg(format!("--cgroup-parent=/{}", bed.namespace))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--storage-driver=vfs", "--live-restore"])
            .stderr(log);
        let engine = common::background(&mut command, &folder.join("dockerd.out"));
        let docker = Self {
            folder: folder.clone(),
            _engine: engine,
        };
        eventually("dockerd answers", || {
            docker.run(&["version"]).code == Some(0)
        });
        let rootfs = bed.rootfs();
        run(Command::new("tar").args(["-C", &rootfs, "-cf", &path("rootfs.tar"), "."])).ok();
        docker
            .run(&[
                "import",
                "--change",
                "ENV PATH=/bin",
                &path("rootfs.tar"),
                "bb:1",
            ])
            .ok();
        docker
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        let host = format!("unix://{}", self.folder.join("d.sock").display());
        run(Command::new("docker").args(["-H", &host]).args(arguments))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        for id in self.run(&["ps", "-aq"]).stdout.lines() {
            self.run(&["rm", "-f", id]);
        }
        let pid = std::fs::read_to_string(self.folder.join("docker.pid")).unwrap_or_default();
        if !pid.is_empty() {
            run(Command::new("kill").arg(pid.trim()));
        }
        eventually("dockerd ends", || !self.folder.join("docker.pid").exists());
        // What the engine mounts for itself and leaves there.
        run(Command::new("umount")
            .arg("-l")
            .arg(self.folder.join("docker")));
    }
}

#[test]
fn docker_runs_on_it() {
    let mut bed = Bed::new(Shims::Ours);
    let docker = Docker::new(&bed);
    let ran = docker.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "bb:1",
        "sh",
        "-c",
        "echo hi; exit 4",
    ]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(4), "hi\n"),
        "{ran:?}"
    );

    let script = "while :; do busybox sleep 0.1; done";
    docker
        .run(&[
            "run",
            "-d",
            "--name",
            "d1",
            "--network",
            "none",
            "bb:1",
            "sh",
            "-c",
            script,
        ])
        .ok();
    assert_eq!(
        docker
            .run(&["exec", "d1", "sh", "-c", "echo in; exit 3"])
            .code,
        Some(3)
    );
    assert!(docker.run(&["top", "d1"]).ok().contains("busybox"));
    assert!(
        docker
            .run(&["stats", "--no-stream", "d1"])
            .ok()
            .contains("d1")
    );
    docker.run(&["pause", "d1"]).ok();
    docker.run(&["unpause", "d1"]).ok();
    docker.run(&["update", "--pids-limit", "77", "d1"]).ok();

    // The daemon dies under a running Docker and comes back.
    bed.kill();
    bed.start();
    eventually("exec works again", || {
        docker.run(&["exec", "d1", "sh", "-c", "echo back"]).stdout == "back\n"
    });
    docker.run(&["kill", "d1"]).ok();
    eventually("its exit is seen", || {
        docker
            .run(&["inspect", "-f", "{{.State.ExitCode}}", "d1"])
            .stdout
            == "137\n"
    });
    docker.run(&["rm", "d1"]).ok();
    assert_eq!(bed.ctr(&["task", "ls", "-q"]).ok(), "");
}
