//! Running a shim's binary: `start`, which leaves a serving shim behind and says its address, and
//! `delete`, which cleans up after one that has died. These children are collected by tokio, which
//! waits for each by its pid: the daemon has no reaper that could take them away from it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use protobuf::Message;
use task_api::bootstrap::env;
use task_api::task::DeleteResponse;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::bootstrap;
pub use super::bootstrap::{Endpoint, legacy};
use super::{info, output};
use crate::bundle::Bundle;
use crate::config::{Config, Timeouts};

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
    /// How long shims may take.
    pub limits: Timeouts,
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
            limits: config.timeouts,
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

/// Starts a shim in `bundle`, with `options` (an encoded Any, or nothing) on its stdin.
///
/// Shims up to those of containerd 2.2 take the bare options. Later ones may insist on bootstrap
/// parameters: one that fails, and that answers `-info` as every shim since containerd 2.0 does, is
/// given them before it counts as failed.
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
    let started = start_with(surroundings, binary, bundle, &options).await;
    match &started {
        Err(error) if error.kind() != io::ErrorKind::TimedOut => {}
        _ => return started,
    }
    if info::ask(binary, &options).await.is_err() {
        return started;
    }
    let params = bootstrap::params(surroundings, bundle, &options)?;
    let again = start_with(surroundings, binary, bundle, &params).await;
    again.or(started)
}

async fn start_with(
    surroundings: &Surroundings,
    binary: &Path,
    bundle: &Bundle,
    stdin: &[u8],
) -> io::Result<Endpoint> {
    let mut command = surroundings.command(binary, bundle);
    command.arg("start");
    let output = run(command, stdin, START_LIMIT).await?;
    bootstrap::endpoint(&output.stdout).ok_or_else(|| {
        io::Error::other(format!(
            "{}: start answered no address: {}",
            binary.display(),
            output::quote(&output.stdout, &output.stderr)
        ))
    })
}

/// Runs a shim's binary with `stdin` to its end.
///
/// # Errors
/// It could not be run or failed, with what it printed; `TimedOut` after `limit`, and then it is
/// killed with all of its process group.
pub(super) async fn run(mut command: Command, stdin: &[u8], limit: Duration) -> io::Result<Output> {
    let binary = PathBuf::from(command.as_std().get_program());
    let action = command.as_std().get_args().last().unwrap_or_default();
    let action = action.to_string_lossy().into_owned();
    let told = |kind: io::ErrorKind, what: &str| {
        io::Error::new(kind, format!("{}: {what}", binary.display()))
    };
    if !stdin.is_empty() {
        command.stdin(Stdio::piped());
    }
    let work = async {
        let mut child = command
            .spawn()
            .map_err(|error| told(error.kind(), &error.to_string()))?;
        if let Some(mut pipe) = child.stdin.take() {
            // A shim that does not read what it is given closes the pipe; that is its affair.
            let _ = pipe.write_all(stdin).await;
        }
        output::of(child, limit).await
    };
    let output = work
        .await
        .map_err(|error| told(error.kind(), &format!("{action} {error}")))?;
    if !output.status.success() {
        let said = output::quote(&output.stdout, &output.stderr);
        let text = format!("{action} failed ({}): {said}", output.status);
        return Err(told(io::ErrorKind::Other, &text));
    }
    Ok(output)
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
    let output = run(command, &[], surroundings.limits.cleanup).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !said.trim().is_empty() {
        log::warn!(
            "cleanup of {}/{}: {}",
            bundle.namespace,
            bundle.id,
            said.trim()
        );
    }
    DeleteResponse::parse_from_bytes(&output.stdout)
        .map_err(|error| io::Error::other(format!("{}: {error}", binary.display())))
}
