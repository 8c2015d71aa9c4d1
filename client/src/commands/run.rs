//! `wherry run`: makes a container, runs it, and accompanies it to its end.

mod record;

pub(super) use record::STOP_SIGNAL;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use core_api::tasks::CreateTaskRequest;
use core_api::types::Mount;
use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::exit_code;
use super::rm::remove;
use crate::cli::Daemon;
use crate::connection::Connection;
use crate::error::{Context, Error, Result};
use crate::image::platform::Platform;
use crate::process::Process;
use crate::signals::{self, Signals};
use crate::spec::{self, BindMount, Cpus, Network};
use crate::stdio::{Fifos, Streams};
use crate::terminal::{self, RawMode};
use crate::{output, random};

/// How long a step that was begun is waited for after the user asked for an end.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// How long the removal of a container may take.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// Run a command in a new container
///
/// Signals are passed on to the command; a third Ctrl-C kills it.
#[derive(Debug, Args)]
#[command(
    override_usage = "wherry run [OPTIONS] IMAGE [COMMAND] [ARGUMENT]...\n       \
    wherry run [OPTIONS] --rootfs DIR COMMAND [ARGUMENT]..."
)]
pub(crate) struct Run {
    /// Root file system of the container, in place of an image
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Name of the container [default: twelve random digits]
    #[arg(long, value_name = "ID")]
    name: Option<String>,
    /// Remove the container when it has ended
    #[arg(long, conflicts_with = "detach")]
    pub(crate) rm: bool,
    /// Print the container's name and leave it running
    #[arg(short, long)]
    detach: bool,
    /// Pass stdin on to the command
    #[arg(short, long, conflicts_with = "detach")]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long, conflicts_with = "detach")]
    tty: bool,
    /// With --detach: append the output to this file
    #[arg(long, value_name = "FILE", requires = "detach")]
    log: Option<PathBuf>,
    /// Which shim runs it: a runtime type, or the absolute path of a shim
    #[arg(long, value_name = "TYPE", default_value = "io.containerd.runc.v2")]
    runtime: String,
    /// Which OCI runtime the runc shim calls, in place of runc
    #[arg(long, value_name = "PROGRAM")]
    runc_binary: Option<String>,
    /// Let systemd make the cgroup
    #[arg(long)]
    systemd_cgroup: bool,
    /// Set a variable; without a value, to the one it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Mount SOURCE at TARGET
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]", value_parser = spec::parse_volume)]
    volume: Vec<BindMount>,
    /// Mount, as in type=bind,src=/data,dst=/data,options=rbind:ro
    #[arg(long, value_name = "MOUNT", value_parser = spec::parse_mount)]
    mount: Vec<BindMount>,
    /// Working directory of the command [default: the image's, or /]
    #[arg(short = 'w', long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Program to run in place of the image's entry point; an empty one for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// What to do when the image is not here
    #[arg(long, value_enum, default_value = "never", conflicts_with = "rootfs")]
    pull: Fetch,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "rootfs")]
    platform: Option<Platform>,
    /// Snapshotter for the image [default: the namespace's, or overlayfs]
    #[arg(long, value_name = "NAME", conflicts_with = "rootfs")]
    snapshotter: Option<String>,
    /// Do not tell how far the unpacking of the image is
    #[arg(short, long)]
    quiet: bool,
    /// User of the command [default: the image's, or root]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Host name [default: the container's name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Network of the container
    #[arg(long, value_enum, default_value = "none")]
    net: Network,
    /// Keep the root file system from being written to
    #[arg(long)]
    read_only: bool,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take away a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Limit of memory, such as 64m
    #[arg(long, value_name = "BYTES", value_parser = spec::parse_bytes)]
    memory: Option<i64>,
    /// Limit of processor time, such as 0.5
    #[arg(long, value_name = "NUMBER", value_parser = spec::parse_cpus)]
    cpus: Option<Cpus>,
    /// Limit of the number of processes
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    pids_limit: Option<i64>,
    /// Label of the container
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// The image, the command and its arguments
    #[arg(value_name = "IMAGE", trailing_var_arg = true)]
    pub(crate) words: Vec<String>,
}

/// Whether an image that is not here is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fetch {
    /// Say that it is not here
    Never,
    /// Pull it
    Missing,
}

impl Run {
    /// Runs it.
    ///
    /// # Errors
    /// What kept it from running; nothing of it is left then.
    pub(crate) async fn execute(self, daemon: &Daemon) -> Result<ExitCode> {
        let id = match &self.name {
            Some(name) => name.clone(),
            None => random::id()?,
        };
        // What can be told without a daemon is told first.
        let on_folder = match (&self.rootfs, self.words.first()) {
            (Some(folder), _) => Some(self.on_folder(&id, &daemon.namespace, folder)?),
            (None, Some(_)) => None,
            (None, None) => {
                return Err(Error::said(
                    "an image is missing, such as busybox; or name a folder with --rootfs DIR",
                ));
            }
        };
        if self.tty && self.interactive && !terminal::is_interactive() {
            return Err(Error::said(
                "-i with -t needs a terminal, and stdin is none",
            ));
        }
        let log = self.log_uri()?;
        let connection = Connection::open(daemon).await?;
        let (mounts, mut signals) = match (on_folder, self.words.split_first()) {
            (Some(container), _) => {
                let signals = signals::listen()?;
                record::create(&connection, container).await?;
                (Vec::new(), signals)
            }
            (None, Some((image, words))) => {
                let mounts = self.on_image(&id, image, words, &connection).await?;
                (mounts, signals::listen()?)
            }
            (None, None) => return Err(Error::said("an image is missing")),
        };
        let first = Process {
            connection,
            container: id,
            exec: String::new(),
        };
        if self.detach {
            return self.leave(&first, mounts, &mut signals, log).await;
        }
        let ended = self.attend(&first, mounts, &mut signals).await;
        // What could not run is of no use; nor is what was asked to go. Else it stays, with its
        // exit code, until it is removed.
        if self.rm || ended.is_err() {
            discard(&first, ended.is_ok()).await;
        }
        ended
    }

    fn log_uri(&self) -> Result<String> {
        let Some(log) = &self.log else {
            return Ok(String::new());
        };
        let whole = std::path::absolute(log).about(format!("--log {}", log.display()))?;
        let path = whole.to_str().ok_or_else(|| {
            Error::said(format!(
                "--log {}: only UTF-8 can be passed on",
                log.display()
            ))
        })?;
        Ok(format!("file://{path}"))
    }

    /// Starts the container and leaves it alone.
    async fn leave(
        &self,
        first: &Process,
        rootfs: Vec<Mount>,
        signals: &mut Signals,
        log: String,
    ) -> Result<ExitCode> {
        let started = unless_ended(signals, async {
            let request = CreateTaskRequest {
                container_id: first.container.clone(),
                rootfs,
                stdout: log.clone(),
                stderr: log,
                ..CreateTaskRequest::default()
            };
            create_task(first, request).await?;
            first.start().await
        });
        match started.await {
            Ok(Some(())) => output::say(&first.container).map(|()| ExitCode::SUCCESS),
            stopped => {
                discard(first, false).await;
                stopped?;
                Ok(ExitCode::from(crate::cli::RUN_FAILED))
            }
        }
    }

    /// Starts the container and stays until it has ended.
    async fn attend(
        &self,
        first: &Process,
        rootfs: Vec<Mount>,
        signals: &mut Signals,
    ) -> Result<ExitCode> {
        let streams = Streams {
            input: self.interactive,
            terminal: self.tty,
        };
        let fifos = Fifos::new(streams)?;
        let _mode = RawMode::for_streams(streams)?;
        let created = unless_ended(signals, async {
            let request = CreateTaskRequest {
                container_id: first.container.clone(),
                rootfs,
                stdin: fifos.stdin(),
                stdout: fifos.stdout(),
                stderr: fifos.stderr(),
                terminal: self.tty,
                ..CreateTaskRequest::default()
            };
            create_task(first, request).await?;
            fifos.attach()
        });
        let not_started = || Error::said(format!("{}: not started: asked to end", first.name()));
        let mut relays = created.await?.ok_or_else(not_started)?;
        let started = unless_hung(signals, first.start()).await?;
        started.ok_or_else(not_started)?;
        let ended = first.accompany(&mut relays, signals, self.tty).await;
        ended.map(exit_code)
    }
}

/// Removes a container, if the daemon lets us. What cannot be removed is told: how the container
/// ended counts all the same. With `patience`, a daemon that is just away is waited for.
async fn discard(first: &Process, patience: bool) {
    let removed = async {
        if !patience && !first.connection.is_there().await {
            return Err(Error::said("the daemon is away"));
        }
        match timeout(REMOVAL_LIMIT, remove(first, true)).await {
            Ok(removed) => removed,
            Err(_) => Err(Error::said("the daemon does not answer")),
        }
    };
    if let Err(error) = removed.await {
        output::complain(&format_args!("{} is not removed: {error}", first.name()));
    }
}

/// Carries out steps; once the user asks for an end they have a limited time. Nothing is answered
/// if there was such a wish.
pub(super) async fn unless_ended<T>(
    signals: &mut Signals,
    steps: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    let (done, wish) = heeding(signals, steps).await?;
    Ok(done.filter(|_| wish.is_none()))
}

/// As [`unless_ended`] for the step by which a process starts: it may run, and have said so, before
/// the daemon's answer is here, and then the wish for an end is a signal for it like any other.
pub(super) async fn unless_hung<T>(
    signals: &mut Signals,
    start: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    let (done, wish) = heeding(signals, start).await?;
    if let Some(signal) = wish {
        signals.put_back(signal);
    }
    Ok(done)
}

/// Carries out steps, and answers what they did and whether an end was asked for meanwhile, after
/// which they have a limited time.
async fn heeding<T>(
    signals: &mut Signals,
    steps: impl Future<Output = Result<T>>,
) -> Result<(Option<T>, Option<Signal>)> {
    tokio::pin!(steps);
    let wish = loop {
        tokio::select! {
            done = &mut steps => return Ok((Some(done?), None)),
            signal = signals.next() => {
                let signal = signal?;
                if signals::is_an_end(signal) {
                    break signal;
                }
            }
        }
    };
    // A call that is broken off may still take effect at the daemon, behind what undoes it.
    match timeout(STEP_LIMIT, steps).await {
        Ok(done) => Ok((Some(done?), Some(wish))),
        Err(_) => Ok((None, Some(wish))),
    }
}

async fn create_task(first: &Process, request: CreateTaskRequest) -> Result<()> {
    let created = first.connection.tasks().create(request).await;
    created.map(drop).about("cannot create the container")
}
