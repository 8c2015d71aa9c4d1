//! A registry on this machine: Debian's `docker-registry`, on a loopback port, plain HTTP.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::e2e::{Running, SHORT, until_ok};
use crate::target;

/// A registry with nothing in it. Dropping it ends it and removes what it has.
pub(super) struct Registry {
    address: SocketAddr,
    server: Running,
    _folder: TempDir,
}

impl Registry {
    /// Starts one; none where it is not installed, and that is said.
    pub(super) fn start() -> Option<Self> {
        let Some(program) = target::find_in_path("docker-registry") else {
            eprintln!("   docker-registry is not here: pulling is left out");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("wherry-bench.").tempdir();
        let folder = folder.expect("a folder for a registry");
        // The port is free again when this returns; nobody else is given it so soon.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: {address}}}\n",
            folder.path().join("data")
        );
        fs::write(&config, text).expect("write config.yml");
        let mut command = Command::new(program);
        command.arg("serve").arg(&config);
        let server = Running::start_logged(command, &folder.path().join("log"));
        until_ok("the registry listens", SHORT, || {
            TcpStream::connect(address)
        });
        Some(Self {
            address,
            server,
            _folder: folder,
        })
    }

    /// What an image is called that is there.
    pub(super) fn name(&self) -> String {
        format!("{}/picture:1", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.signal(Signal::SIGTERM);
        let _ = self.server.wait(SHORT);
    }
}
