//! A Docker engine of a test's own, on the daemon of its bed.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be set up ends a test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{Background, Bed, Ran, background, eventually, run};

/// An engine with everything below the bed's folder.
pub struct Docker {
    folder: PathBuf,
    containerd: PathBuf,
    namespace: String,
    engine: Background,
}

impl Docker {
    pub fn new(bed: &Bed) -> Self {
        let folder = bed.dir.path().to_owned();
        std::fs::write(folder.join("daemon.json"), "{}").unwrap();
        let (containerd, namespace) = (bed.address(), bed.namespace.clone());
        let engine = start(&folder, &containerd, &namespace);
        let docker = Self {
            folder,
            containerd,
            namespace,
            engine,
        };
        docker.until_it_answers();
        let path = |name: &str| docker.folder.join(name).to_str().unwrap().to_owned();
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
    fn until_it_answers(&self) {
        eventually("dockerd answers", || self.run(&["version"]).code == Some(0));
    }

    /// The engine dies without a word and comes back.
    pub fn restart(&mut self) {
        self.engine.stop();
        let _ = std::fs::remove_file(self.folder.join("docker.pid"));
        self.engine = start(&self.folder, &self.containerd, &self.namespace);
        self.until_it_answers();
    }

    /// Starts a container that does `script` until it is stopped.
    #[track_caller]
    pub fn detached(&self, name: &str, more: &[&str], script: &str) {
        let mut arguments = vec!["run", "-d", "--name", name, "--network", "none"];
        arguments.extend(more);
        arguments.extend(["bb:1", "sh", "-c", script]);
        self.run(&arguments).ok();
    }

    /// What `docker inspect` says of a container.
    pub fn inspect(&self, name: &str, format: &str) -> String {
        let said = self.run(&["inspect", "-f", format, name]).stdout;
        said.trim().to_owned()
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let host = format!("unix://{}", self.folder.join("d.sock").display());
        run(Command::new("docker").args(["-H", &host]).args(arguments))
    }
}

/// Starts an engine with everything below `folder`.
fn start(folder: &Path, containerd: &Path, namespace: &str) -> Background {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path("dockerd.log"))
        .unwrap();
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
        .arg(format!("--containerd={}", containerd.display()))
        .arg(format!("--containerd-namespace={namespace}"))
        .arg(format!(
            "--containerd-plugins-namespace={namespace}-plugins"
        ))
        .arg(format!("--cgroup-parent=/{namespace}"))
        .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
        .args(["--storage-driver=vfs", "--live-restore"])
        .stderr(log);
    background(&mut command, &folder.join("dockerd.out"))
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
