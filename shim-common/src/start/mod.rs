//! The `start` action: bring up a serving shim, or find the one that serves the group already
//! (shim-contract section 1.6). What depends on the runtime comes in by [`StartPlan`].
//!
//! This path is run for every container and waited for by its client, so it makes few system
//! calls and starts no async runtime.

pub mod shim_cgroup;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::spawn::{Child, Spawn, Stdio};
use task_api::bundle::{ADDRESS, LOG, SHIM_PID, SOCKET_DIR_LINK};

use crate::bundle;
use crate::socket::{self, Bound, Existing, SocketError};

/// The descriptor that the served process finds its listening socket at.
pub const SOCKET_FD: i32 = 3;
/// The descriptor of a debug socket, where the caller made one.
pub const DEBUG_SOCKET_FD: i32 = 4;

/// The highest OOM score adjustment (proc(5)).
const OOM_SCORE_MAX: i32 = 1000;
/// How long a child that was killed after a failure is waited for.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// What to start, as decided from the command line, stdin, the spec and the flavour.
#[derive(Debug)]
pub struct StartPlan<'a> {
    /// containerd's namespace of the container.
    pub namespace: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// containerd's gRPC address.
    pub grpc_address: &'a str,
    /// The id of the group whose shim this is; the container's own where there is no group.
    pub group: &'a str,
    /// Whether the shim shall log more.
    pub debug: bool,
    /// The folder of the socket.
    pub socket_dir: &'a Path,
    /// Whether the served process must be told of that folder: it is not the usual one.
    pub link_socket_dir: bool,
    /// What to do with a socket that is there.
    pub existing: Existing,
    /// The bundle, which is the working directory.
    pub bundle: &'a Path,
    /// Whether `shim.pid` is written.
    pub write_shim_pid: bool,
    /// Whether to ask for a core scheduling group.
    pub core_scheduling: bool,
    /// The cgroup to move the shim into.
    pub shim_cgroup: Option<&'a str>,
    /// The environment of the served process.
    pub env: Vec<(OsString, OsString)>,
}

/// Why there is no shim.
#[derive(Debug)]
pub enum StartError {
    /// The socket could not be made.
    Socket(SocketError),
    /// A step failed; the text of the error names what it was about.
    Step(&'static str, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "{error}"),
            Self::Step(step, error) => write!(f, "{step}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Carries out the plan and gives the address of the shim. After a failure nothing is left: no
/// process, no socket.
///
/// # Errors
/// See [`StartError`].
pub fn start(plan: StartPlan<'_>) -> Result<String, StartError> {
    let path = socket::path(
        plan.socket_dir,
        plan.grpc_address,
        plan.namespace,
        plan.group,
    );
    let address = socket::address(&path);
    let listener = match socket::bind(&path, plan.existing).map_err(StartError::Socket)? {
        Bound::New(listener) => listener,
        Bound::Served => {
            // Daemons up to 1.7 find the shim of this container again by the file.
            write_address(&plan, &address)?;
            return Ok(address);
        }
    };
    match serve(plan, listener, &address) {
        Ok(()) => Ok(address),
        Err(error) => {
            // The first error is the one to tell.
            let _ = socket::remove_file(&path);
            Err(error)
        }
    }
}

fn serve(plan: StartPlan<'_>, listener: OwnedFd, address: &str) -> Result<(), StartError> {
    if plan.core_scheduling {
        sys::process::share_core_scheduling_group()
            .map_err(|error| StartError::Step("make a core scheduling group", error))?;
    }
    let child =
        spawn(&plan, listener).map_err(|error| StartError::Step("start the shim", error))?;
    settle(&plan, &child, address).inspect_err(|_| abandon(&child, plan.bundle))
}

fn spawn(plan: &StartPlan<'_>, listener: OwnedFd) -> io::Result<Child> {
    // Through /proc, the shim is the very binary that start is, even while another takes its
    // place on disk; its own path is what administrators look for in the process list.
    let own = std::env::current_exe()?;
    let mut args: Vec<OsString> = vec![own.into_os_string()];
    for (flag, value) in [
        ("-namespace", plan.namespace),
        ("-id", plan.id),
        ("-address", plan.grpc_address),
    ] {
        args.extend([OsString::from(flag), OsString::from(value)]);
    }
    if plan.debug {
        args.push("-debug".into());
    }
    let mut spawn = Spawn::new("/proc/self/exe");
    spawn.args = args;
    spawn.env.clone_from(&plan.env);
    spawn.extra_fds = vec![(listener, SOCKET_FD)];
    spawn.new_process_group = true;
    // Never our own stdout and stderr: containerd waits for their end. Without a log FIFO, or
    // without its reader, the shim is silent until it opens the FIFO itself.
    if let Ok(log) = sys::pipe::open_fifo(&plan.bundle.join(LOG), libc::O_WRONLY) {
        spawn.stderr = Stdio::Fd(log);
    }
    spawn.spawn()
}

/// What is done once the shim runs: its cgroup, its OOM score, its files.
fn settle(plan: &StartPlan<'_>, child: &Child, address: &str) -> Result<(), StartError> {
    if let Some(cgroup) = plan.shim_cgroup {
        shim_cgroup::add(cgroup, child.pid)
            .map_err(|error| StartError::Step("move the shim into its cgroup", error))?;
    }
    raise_oom_score(child.pid)
        .map_err(|error| StartError::Step("adjust the shim's OOM score", error))?;
    if plan.link_socket_dir {
        link(plan.socket_dir, &plan.bundle.join(SOCKET_DIR_LINK))
            .map_err(|error| StartError::Step("link the socket folder into the bundle", error))?;
    }
    write_address(plan, address)?;
    if plan.write_shim_pid {
        bundle::write(plan.bundle, SHIM_PID, &child.pid.to_string())
            .map_err(|error| StartError::Step("write the shim's pid", error))?;
    }
    Ok(())
}

/// The shim shall die before containerd (our parent), and after the containers: one step worse
/// than containerd's score. Without privilege it stays as inherited.
fn raise_oom_score(pid: i32) -> io::Result<()> {
    let wanted = sys::process::oom_score_adj(sys::process::parent_pid())?;
    match sys::process::set_oom_score_adj(pid, (wanted + 1).min(OOM_SCORE_MAX)) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

fn link(target: &Path, link: &Path) -> io::Result<()> {
    match std::os::unix::fs::symlink(target, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(link)?;
            std::os::unix::fs::symlink(target, link)
        }
        other => other,
    }
    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", link.display())))
}

fn write_address(plan: &StartPlan<'_>, address: &str) -> Result<(), StartError> {
    bundle::write(plan.bundle, ADDRESS, address)
        .map_err(|error| StartError::Step("write the shim's address", error))
}

/// Kills the shim that nobody will use and takes back its files. The error that led here is the
/// one to tell, so failures are not.
fn abandon(child: &Child, bundle: &Path) {
    use std::os::fd::AsFd;
    let _ = sys::pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = sys::wait::wait_timeout(child, REAP_TIMEOUT);
    for name in [ADDRESS, SHIM_PID, SOCKET_DIR_LINK] {
        let _ = std::fs::remove_file(bundle.join(name));
    }
}

/// The path of the binary that runs, for messages; empty when it cannot be told.
pub fn own_path() -> PathBuf {
    std::env::current_exe().unwrap_or_default()
}
