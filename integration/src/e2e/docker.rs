//! A private Docker engine on a private containerd, and the `docker` client on it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::containerd::{Containerd, show_end_of, write};
use super::footprint::Footprint;
use super::image::layer_tar;
use super::run::{Output, Running, command, run};
use super::wait::{LONG, until_ok};

/// A running Docker engine. Dropping it ends it, its containerd and all their containers.
pub struct Dockerd {
    daemon: Running,
    node: Containerd,
}

impl Dockerd {
    /// The name of the busybox image that every engine here has.
    pub const IMAGE: &'static str = "wherry-test:latest";

    /// Starts a containerd with the shims in `shims`, and a Docker engine on it without any
    /// network of its own; imports [`Dockerd::IMAGE`].
    ///
    /// # Panics
    ///
    /// When one of them does not come up; their logs are printed.
    #[must_use]
    pub fn start(shims: &Path) -> Dockerd {
        let node = Containerd::start(shims);
        let namespace = &node.footprint().namespace;
        write(&node.path("daemon.json"), b"{}");
        let path = |name| node.path(name).display().to_string();
        let mut daemon = command("setpriv", ["--pdeathsig", "KILL", "dockerd"]);
        daemon
            // Debian puts the engine into sbin, which not every PATH has.
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .current_dir("/")
            .arg(format!("--config-file={}", path("daemon.json")))
            .arg(format!("--data-root={}", path("docker")))
            .arg(format!("--exec-root={}", path("exec")))
            .arg(format!("--pidfile={}", path("docker.pid")))
            .arg(format!("--host=unix://{}", path("d.sock")))
            .arg(format!(
                "--containerd={}",
                node.footprint().address.display()
            ))
            .arg(format!("--containerd-namespace={namespace}"))
            .arg(format!(
                "--containerd-plugins-namespace={namespace}-plugins"
            ))
            .arg(format!("--cgroup-parent=/{namespace}"))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--storage-driver=overlay2", "--log-level=debug"]);
        let daemon = Running::start_logged(daemon, &node.path("dockerd.log"));
        node.footprint().note_daemon(daemon.pid());
        let engine = Dockerd { daemon, node };
        until_ok("dockerd to answer", LONG, || {
            let answer = engine.docker(["version"]);
            if answer.code == 0 {
                Ok(())
            } else {
                Err(answer)
            }
        });
        let rootfs = engine.node.path("rootfs.tar");
        write(&rootfs, &layer_tar());
        let rootfs = rootfs.to_string_lossy();
        let import = [
            "import",
            "--change",
            "ENV PATH=/bin",
            &*rootfs,
            Dockerd::IMAGE,
        ];
        let _ = engine.docker(import).ok();
        engine.node.footprint().note_baseline();
        engine
    }

    /// The command `docker` with these arguments, on this engine.
    pub fn docker_command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        // The client that belongs to the engine, where its package brings one: a newer client
        // elsewhere in PATH may refuse to speak to it.
        let own = Path::new("/usr/bin/docker");
        let mut docker = Command::new(if own.is_file() {
            own
        } else {
            Path::new("docker")
        });
        docker
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_CONFIG", self.node.path("client"))
            .arg("--host")
            .arg(format!("unix://{}", self.node.path("d.sock").display()))
            .args(args);
        docker
    }

    /// Runs `docker` with these arguments to its end.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    #[must_use]
    pub fn docker<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        run(self.docker_command(args))
    }

    /// Starts `docker` with these arguments and lets it run.
    pub fn docker_start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        Running::start(self.docker_command(args))
    }

    /// `docker run -d` with these flags, image and command; returns the id of the container.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[must_use]
    pub fn run_detached(&self, flags: &[&str], cmd: &[&str]) -> String {
        let head = ["run", "-d", "--network", "none"];
        let args = head.iter().chain(flags).chain(&[Dockerd::IMAGE]).chain(cmd);
        let id = self.docker(args).ok().line().to_owned();
        self.footprint().note_id(&id);
        id
    }

    /// One field of `docker inspect`, as the Go template `field` selects it.
    ///
    /// # Panics
    ///
    /// When there is no such container.
    #[must_use]
    pub fn inspect(&self, id: &str, field: &str) -> String {
        self.docker(["inspect", "--format", field, id])
            .ok()
            .line()
            .to_owned()
    }

    /// Waits until `docker inspect` gives `value` for `field`.
    ///
    /// # Panics
    ///
    /// When it never does; the message has the last value.
    pub fn await_field(&self, id: &str, field: &str, value: &str) {
        until_ok(&format!("{field} of {id} to be {value}"), LONG, || {
            let now = self.inspect(id, field);
            if now == value {
                Ok(())
            } else {
                Err(format!("it is {now}"))
            }
        });
    }

    /// Kills containerd under the running engine, with SIGKILL.
    pub fn kill_containerd(&mut self) {
        self.node.kill_daemon();
    }

    /// Starts containerd again after [`Dockerd::kill_containerd`].
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn restart_containerd(&mut self) {
        self.node.restart_daemon();
    }

    /// A path in the folder of the engine.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.node.path(name)
    }

    /// What the engine, its shims and its containers have on the machine.
    #[must_use]
    pub fn footprint(&self) -> &Footprint {
        self.node.footprint()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let _ = self.footprint().shims();
        self.daemon.signal(Signal::SIGKILL);
        let _ = self.daemon.wait(LONG);
        if std::thread::panicking() {
            show_end_of(&self.node.path("dockerd.log"));
        }
    }
}
