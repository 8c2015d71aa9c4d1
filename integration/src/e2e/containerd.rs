//! A private stock containerd: its own root, state, sockets, configuration and namespace, and
//! the shims under test first in its PATH.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::footprint::{Footprint, Shim};
use super::image::layout_tar;
use super::run::{Output, Running, command, run};
use super::wait::{LONG, until_ok};
use crate::hybrid;

/// The name of the busybox image that every [`Containerd`] has.
pub const IMAGE: &str = "wherry.test/busybox:latest";

/// A running containerd. Dropping it ends it and everything it started.
pub struct Containerd {
    folder: TempDir,
    shims: PathBuf,
    daemon: Option<Running>,
    footprint: Footprint,
}

impl Containerd {
    /// Starts a containerd that finds its shims in `shims`, and imports the image [`IMAGE`].
    ///
    /// # Panics
    ///
    /// When it does not come up; its log is printed.
    #[must_use]
    pub fn start(shims: &Path) -> Containerd {
        let folder = tempfile::Builder::new()
            .prefix("wherry-e2e.")
            .tempdir()
            .unwrap_or_else(|error| panic!("cannot make a folder for containerd: {error}"));
        let path = folder.path();
        // The random end of the folder's name makes the namespace and the cgroup unique too.
        let suffix = path
            .extension()
            .and_then(OsStr::to_str)
            .unwrap_or("unnamed");
        let namespace = format!("wherry-{}", suffix.to_lowercase());
        let footprint = Footprint::new(path, &path.join("c.sock"), &namespace);
        let mut node = Containerd {
            shims: shims.to_owned(),
            daemon: None,
            footprint,
            folder,
        };
        fs::create_dir(node.path("bin")).unwrap_or_else(|error| panic!("bin: {error}"));
        write(&node.path("config.toml"), node.config().as_bytes());
        node.start_daemon();

        let image = node.path("image.tar");
        write(&image, &layout_tar(IMAGE));
        let _ = node
            .ctr(["images", "import", &image.to_string_lossy()])
            .ok();
        node.footprint.note_baseline();
        node
    }

    /// The configuration: nothing of the machine's own containerd is touched, and the CRI plugin,
    /// which wants a network, is off.
    fn config(&self) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "version = 2\n\
             root = {:?}\n\
             state = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n  address = {:?}\n\
             [ttrpc]\n  address = {:?}\n\
             [debug]\n  level = \"debug\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = {:?}\n",
            path("root"),
            path("state"),
            path("c.sock"),
            path("c.sock.ttrpc"),
            path("opt"),
        )
    }

    fn start_daemon(&mut self) {
        let config = self.path("config.toml");
        // The parent-death signal ends the daemon also when the test itself is killed.
        let args = [
            "--pdeathsig",
            "KILL",
            "containerd",
            "--config",
            &config.to_string_lossy(),
        ];
        let mut daemon = command("setpriv", args);
        daemon.env("PATH", self.search_path()).current_dir("/");
        let daemon = Running::start_logged(daemon, &self.path("containerd.log"));
        self.footprint.note_daemon(daemon.pid());
        self.daemon = Some(daemon);
        until_ok("containerd to answer", LONG, || {
            let answer = self.ctr(["--connect-timeout", "2s", "version"]);
            if answer.code == 0 {
                Ok(())
            } else {
                Err(answer)
            }
        });
    }

    /// PATH of the daemon: a folder for programs of the test's own, the shims under test, then what
    /// Debian has.
    fn search_path(&self) -> String {
        format!(
            "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.path("bin").display(),
            self.shims.display()
        )
    }

    /// Lets `crun` be used as a runtime on this machine. It refuses a hybrid cgroup set-up whose v2
    /// part has controllers, so where that is so a wrapper hides the v2 part from it, in a
    /// mount namespace of its own.
    pub fn make_crun_usable(&self) {
        if !hybrid::controllers().is_empty() {
            let unified = hybrid::UNIFIED;
            let hide = format!(r#"umount {unified} && exec /usr/bin/crun "$@""#);
            self.add_program(
                "crun",
                &format!("exec unshare --mount sh -c '{hide}' crun \"$@\""),
            );
        }
    }

    /// Puts the shell script `body` as program `name` first in the PATH of daemon and shims.
    pub fn add_program(&self, name: &str, body: &str) {
        let program = self.path("bin").join(name);
        write(&program, format!("#!/bin/sh\n{body}\n").as_bytes());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    }

    /// Kills the daemon with SIGKILL; its shims and containers live on.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGKILL);
            let _ = daemon.wait(LONG);
        }
    }

    /// Starts the daemon again after [`Containerd::kill_daemon`].
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn restart_daemon(&mut self) {
        self.kill_daemon();
        self.start_daemon();
    }

    /// The command `ctr` with these arguments, on this containerd and namespace.
    pub fn ctr_command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(&self.footprint.address);
        ctr.arg("--namespace")
            .arg(&self.footprint.namespace)
            .args(args);
        ctr
    }

    /// Runs `ctr` with these arguments to its end.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    #[must_use]
    pub fn ctr<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        run(self.ctr_command(args))
    }

    /// Starts `ctr` with these arguments and lets it run.
    pub fn ctr_start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        Running::start(self.ctr_command(args))
    }

    /// A container id for this test; the socket of its shim is looked for among what is left.
    #[must_use]
    pub fn id(&self, name: &str) -> String {
        self.footprint.note_id(name);
        name.to_owned()
    }

    /// What `ctr task ls` says of container `id`: `RUNNING`, `PAUSED`, `STOPPED`, or nothing.
    #[must_use]
    pub fn status(&self, id: &str) -> Option<String> {
        let list = self.ctr(["task", "ls"]).ok();
        list.stdout.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(id)).then(|| words.nth(1).map(str::to_owned))?
        })
    }

    /// Waits until `ctr task ls` says `status` of container `id`.
    ///
    /// # Panics
    ///
    /// When it never does; the message has the last status.
    pub fn await_status(&self, id: &str, status: &str) {
        until_ok(&format!("{id} to be {status}"), LONG, || {
            let now = self.status(id);
            if now.as_deref() == Some(status) {
                Ok(())
            } else {
                Err(format!("it is {now:?}"))
            }
        });
    }

    /// Deletes the ended task and its container; ctr must be told that it ended with `code`.
    ///
    /// # Panics
    ///
    /// When a delete fails, or tells another exit code.
    pub fn delete(&self, id: &str, code: i32) {
        let deleted = self.ctr(["task", "delete", id]).ok();
        let told = format!("exit code {code}");
        assert!(
            deleted.stderr.contains(&told),
            "delete says {told}: {deleted}"
        );
        let _ = self.ctr(["container", "delete", id]).ok();
    }

    /// Kills the container with SIGKILL, and deletes task and container.
    ///
    /// # Panics
    ///
    /// When one of the steps fails.
    pub fn remove(&self, id: &str) {
        let _ = self.ctr(["task", "kill", "--signal", "SIGKILL", id]).ok();
        self.await_status(id, "STOPPED");
        self.delete(id, 137);
    }

    /// What this containerd, its shims and its containers have on the machine.
    #[must_use]
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// The one shim started for container `id`.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one.
    #[must_use]
    pub fn shim_of(&self, id: &str) -> Shim {
        self.footprint.shim_of(id)
    }

    /// A path in the folder of this containerd.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Seen once while the daemon lives, so that the sockets of all shims are known.
        let _ = self.footprint.shims();
        self.kill_daemon();
        if std::thread::panicking() {
            show_end_of(&self.path("containerd.log"));
        }
        self.footprint.wipe();
        if std::env::var_os("WHERRY_KEEP").is_some() {
            self.folder.disable_cleanup(true);
        }
    }
}

pub(super) fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Prints the last lines of a daemon's log beside the failed assertion.
#[expect(
    clippy::print_stderr,
    reason = "a failed test shows what the daemon saw"
)]
pub(super) fn show_end_of(log: &Path) {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(30)..];
    eprintln!("--- the end of {}\n{}\n---", log.display(), last.join("\n"));
}
