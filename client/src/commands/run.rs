//! `wherry run`: makes a container, runs it, and accompanies it to its end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use core_api::containers::container::Runtime;
use core_api::containers::{Container, CreateContainerRequest};
use core_api::prost::Message;
use core_api::tasks::CreateTaskRequest;
use core_api::{Any, runc_options};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::exit_code;
use super::rm::remove;
use crate::cli::Daemon;
use crate::connection::Connection;
use crate::error::{Context, Error, Result};
use crate::process::Process;
use crate::signals::{self, Signals};
use crate::spec::{self, BindMount, Cpus, Network, Wishes};
use crate::stdio::{Fifos, Streams};
use crate::terminal::{self, RawMode};
use crate::{output, random};

const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// Runtimes whose options are runc's.
const RUNC_TYPES: &str = "io.containerd.runc.";
/// How long a step that was begun is waited for after the user asked for an end.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// How long the removal of a container may take.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// Run a command in a new container
///
/// Signals are passed on to the command; a third Ctrl-C kills it.
#[derive(Debug, Args)]
#[command(override_usage = "wherry run [OPTIONS] --rootfs DIR COMMAND [ARGUMENT]...")]
pub(crate) struct Run {
    /// Root file system of the container
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
    /// Working directory of the command
    #[arg(short = 'w', long, value_name = "DIR", default_value = "/")]
    cwd: PathBuf,
    /// User of the command
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
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) words: Vec<String>,
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
        let container = self.container(&id, daemon)?;
        if self.tty && self.interactive && !terminal::is_interactive() {
            return Err(Error::said(
                "-i with -t needs a terminal, and stdin is none",
            ));
        }
        let log = self.log_uri()?;
        let connection = Connection::open(daemon).await?;
        let mut signals = signals::listen()?;
        create_container(&connection, container).await?;
        let first = Process {
            connection,
            container: id,
            exec: String::new(),
        };
        if self.detach {
            return self.leave(&first, &mut signals, log).await;
        }
        let ended = self.attend(&first, &mut signals).await;
        // What could not run is of no use; nor is what was asked to go. Else it stays, with its
        // exit code, until it is removed.
        if self.rm || ended.is_err() {
            discard(&first, ended.is_ok()).await;
        }
        ended
    }

    /// The record of the container.
    fn container(&self, id: &str, daemon: &Daemon) -> Result<Container> {
        let rootfs = self.rootfs.as_deref().ok_or_else(|| {
            let image = self.words.first().map_or("IMAGE", String::as_str);
            Error::said(format!(
                "cannot run {image}: images come with the next version; name a folder with \
                 --rootfs DIR"
            ))
        })?;
        if self.words.is_empty() {
            return Err(Error::said("a command is missing, such as /bin/sh"));
        }
        let mut labels = std::collections::BTreeMap::new();
        for label in &self.label {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            labels.insert(name.to_owned(), value.to_owned());
        }
        let built = spec::build(Wishes {
            id,
            namespace: &daemon.namespace,
            rootfs: &spec::rootfs(rootfs)?,
            command: &self.words,
            env: &self.env,
            cwd: &self.cwd,
            user: self.user.as_deref(),
            hostname: self.hostname.as_deref(),
            terminal: self.tty,
            console: terminal::size().filter(|_| self.tty),
            read_only: self.read_only,
            network: self.net,
            mounts: [&self.mount[..], &self.volume[..]].concat(),
            cap_add: &self.cap_add,
            cap_drop: &self.cap_drop,
            memory: self.memory,
            cpus: self.cpus,
            pids_limit: self.pids_limit,
        })?;
        let json = serde_json::to_vec(&built).map_err(|error| Error::said(error.to_string()))?;
        Ok(Container {
            id: id.to_owned(),
            labels,
            runtime: Some(Runtime {
                name: self.runtime.clone(),
                options: self.runtime_options()?,
            }),
            spec: Some(Any {
                type_url: spec::SPEC_TYPE.to_owned(),
                value: json,
            }),
            ..Container::default()
        })
    }

    fn runtime_options(&self) -> Result<Option<Any>> {
        if self.runc_binary.is_none() && !self.systemd_cgroup {
            return Ok(None);
        }
        let is_runc = self.runtime.starts_with(RUNC_TYPES)
            || self
                .runtime
                .rsplit('/')
                .next()
                .is_some_and(|name| name.contains("-runc-"));
        if !is_runc {
            return Err(Error::said(format!(
                "--runc-binary and --systemd-cgroup mean nothing to {}",
                self.runtime
            )));
        }
        let options = runc_options::Options {
            binary_name: self.runc_binary.clone().unwrap_or_default(),
            systemd_cgroup: self.systemd_cgroup,
            ..runc_options::Options::default()
        };
        Ok(Some(Any {
            type_url: RUNC_OPTIONS.to_owned(),
            value: options.encode_to_vec(),
        }))
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
    async fn leave(&self, first: &Process, signals: &mut Signals, log: String) -> Result<ExitCode> {
        let started = unless_ended(signals, async {
            let request = CreateTaskRequest {
                container_id: first.container.clone(),
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
    async fn attend(&self, first: &Process, signals: &mut Signals) -> Result<ExitCode> {
        let streams = Streams {
            input: self.interactive,
            terminal: self.tty,
        };
        let fifos = Fifos::new(streams)?;
        let _mode = RawMode::for_streams(streams)?;
        let created = unless_ended(signals, async {
            let request = CreateTaskRequest {
                container_id: first.container.clone(),
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

async fn create_container(connection: &Connection, container: Container) -> Result<()> {
    let id = container.id.clone();
    let request = CreateContainerRequest {
        container: Some(container),
    };
    let created = connection.containers().create(request).await;
    if let Err(status) = &created
        && status.code() == tonic::Code::AlreadyExists
    {
        return Err(Error::said(format!(
            "there is a container {id} already (wherry rm {id} removes it)"
        )));
    }
    created.map(drop).about(format!("container {id}"))
}

async fn create_task(first: &Process, request: CreateTaskRequest) -> Result<()> {
    let created = first.connection.tasks().create(request).await;
    created.map(drop).about("cannot create the container")
}
