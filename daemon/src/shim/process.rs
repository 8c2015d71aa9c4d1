//! Running a shim's binary: `start`, which leaves a serving shim behind and says its address, and
//! `delete`, which cleans up after one that has died. These children are collected by tokio, which
//! waits for each by its pid: the daemon has no reaper that could take them away from it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use containerd_shim_protos::bootstrap_api::BootstrapResult;
use protobuf::Message;
use serde::{Deserialize, Serialize};
use task_api::bootstrap::env;
use task_api::task::DeleteResponse;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::output;
use crate::bundle::Bundle;
use crate::config::Config;

/// How long a shim may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What every shim is told about the daemon.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Path of the gRPC socket.
    pub address: PathBuf,
    /// Path of the ttrpc socket, which shims publish events to.
    pub ttrpc_address: PathBuf,
    /// The daemon's own binary, which publishes events for whoever cannot.
    pub publish_binary: PathBuf,
    /// Whether shims log more.
    pub debug: bool,
    /// Whether each shim, with its containers, has the threads of a core for itself.
    pub sched_core: bool,
    /// The folder of temporary files; empty for the system's.
    pub temp: PathBuf,
    /// How long cleaning up after a shim may take.
    pub cleanup_limit: Duration,
}

impl Surroundings {
    /// What `config` says.
    ///
    /// # Errors
    /// The daemon's own binary cannot be found.
    pub fn new(config: &Config) -> io::Result<Self> {
        let debug = ["debug", "trace"].contains(&config.log_level.as_str());
        Ok(Self {
            address: config.address.clone(),
            ttrpc_address: config.ttrpc_socket().0,
            publish_binary: std::env::current_exe()?,
            debug: debug || config.shim_debug,
            sched_core: config.sched_core,
            temp: config.temp.clone(),
            cleanup_limit: config.timeouts.cleanup,
        })
    }

    fn command(&self, binary: &Path, bundle: &Bundle) -> Command {
        let mut command = Command::new(binary);
        command.args(["-namespace", &bundle.namespace]);
        command.arg("-address").arg(&self.address);
        command.arg("-publish-binary").arg(&self.publish_binary);
        command.args(["-id", &bundle.id]);
        if self.debug {
            command.arg("-debug");
        }
        command
            .current_dir(&bundle.path)
            .env(env::GOMAXPROCS, "2")
            .env("MAX_SHIM_VERSION", "2")
            .env(env::TTRPC_ADDRESS, &self.ttrpc_address)
            .env("GRPC_ADDRESS", &self.address)
            .env("NAMESPACE", &bundle.namespace)
            .env_remove(env::NOTIFY_SOCKET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if self.sched_core {
            command.env(env::SCHED_CORE, "1");
        }
        if !self.temp.as_os_str().is_empty() {
            command.env("TMPDIR", &self.temp);
        }
        command
    }
}

/// Where a shim serves, as it is written to `bootstrap.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The version of the task service it announced.
    pub version: i32,
    /// `unix://PATH`, or an abstract socket's name.
    pub address: String,
    /// Always `ttrpc` for what we can call.
    pub protocol: String,
}

/// Starts a shim in `bundle`, with `options` (an encoded Any, or nothing) on its stdin.
///
/// # Errors
/// The binary could not be run, failed, took longer than 30 s, or answered nothing sensible; the
/// text has what it printed.
pub async fn start(
    surroundings: &Surroundings,
    binary: &Path,
    bundle: &Bundle,
    options: Vec<u8>,
) -> io::Result<Endpoint> {
    let mut command = surroundings.command(binary, bundle);
    command.arg("start");
    if !options.is_empty() {
        command.stdin(Stdio::piped());
    }
    let told = |what: &str| io::Error::other(format!("{}: {what}", binary.display()));
    let work = async {
        let mut child = command.spawn().map_err(|error| told(&error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A shim that does not read its options closes the pipe, and need not be told off.
            let _ = stdin.write_all(&options).await;
        }
        output::of(child, START_LIMIT).await
    };
    let output = work
        .await
        .map_err(|error| told(&format!("start {error}")))?;
    let said = output::quote(&output.stdout, &output.stderr);
    if !output.status.success() {
        return Err(told(&format!("start failed ({}): {said}", output.status)));
    }
    endpoint(&output.stdout).ok_or_else(|| told(&format!("start answered no address: {said}")))
}

/// Reads the answer to `start`: a protobuf message, JSON, or the bare address (shim-contract 1.3).
fn endpoint(answer: &[u8]) -> Option<Endpoint> {
    let usable = |endpoint: &Endpoint| {
        endpoint.protocol == "ttrpc"
            && [2, 3].contains(&endpoint.version)
            && endpoint.address.len() > 1
    };
    if let Ok(result) = BootstrapResult::parse_from_bytes(answer) {
        let found = Endpoint {
            version: result.version,
            address: result.address,
            protocol: result.protocol,
        };
        if usable(&found) {
            return Some(found);
        }
    }
    let text = std::str::from_utf8(answer).ok()?.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text).ok().filter(usable);
    }
    Some(legacy(text)).filter(usable)
}

/// The endpoint behind a bare address.
pub fn legacy(address: &str) -> Endpoint {
    Endpoint {
        version: 2,
        address: address.trim().to_owned(),
        protocol: "ttrpc".to_owned(),
    }
}

/// Cleans up after a shim that is gone: its processes, mounts and runtime state.
///
/// # Errors
/// As [`start`], with the limit of the configuration.
pub async fn delete(
    surroundings: &Surroundings,
    binary: &Path,
    bundle: &Bundle,
) -> io::Result<DeleteResponse> {
    let mut command = surroundings.command(binary, bundle);
    command.arg("-bundle").arg(&bundle.path).arg("delete");
    let told = |what: &str| io::Error::other(format!("{}: {what}", binary.display()));
    let child = command.spawn().map_err(|error| told(&error.to_string()))?;
    let output = output::of(child, surroundings.cleanup_limit)
        .await
        .map_err(|error| told(&format!("delete {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(told(&format!(
            "delete failed ({}): {}",
            output.status,
            said.trim()
        )));
    }
    if !said.trim().is_empty() {
        log::warn!(
            "cleanup of {}/{}: {}",
            bundle.namespace,
            bundle.id,
            said.trim()
        );
    }
    DeleteResponse::parse_from_bytes(&output.stdout).map_err(|error| told(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generation_of_answers_is_read() {
        let modern = BootstrapResult {
            version: 3,
            address: "unix:///s".into(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        let v3 = Endpoint {
            version: 3,
            ..legacy("unix:///s")
        };
        assert_eq!(
            endpoint(&modern.write_to_bytes().unwrap()),
            Some(v3.clone())
        );
        let json = br#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#;
        assert_eq!(endpoint(json), Some(v3));
        assert_eq!(endpoint(b"unix:///s\n"), Some(legacy("unix:///s")));
        for rubbish in [
            &b""[..],
            b"\n",
            b"{}",
            br#"{"version":9,"address":"unix:///s"}"#,
            b"\xff",
        ] {
            assert_eq!(endpoint(rubbish), None, "{rubbish:?}");
        }
    }
}
