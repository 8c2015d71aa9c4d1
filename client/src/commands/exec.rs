//! `wherry exec`: runs another command in a container.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use core_api::Any;
use core_api::containers::GetContainerRequest;
use core_api::tasks::{DeleteProcessRequest, ExecProcessRequest};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::exit_code;
use super::run::{unless_ended, unless_hung};
use crate::connection::Connection;
use crate::error::{Context, Error, Result};
use crate::output;
use crate::process::Process;
use crate::random;
use crate::signals;
use crate::spec;
use crate::stdio::{Fifos, Streams};
use crate::terminal::{self, RawMode};

/// How long the daemon may take over the removal of an exec that has ended.
const DELETE_LIMIT: Duration = Duration::from_secs(30);

/// Run another command in a container
#[derive(Debug, Args)]
#[command(override_usage = "wherry exec [OPTIONS] ID COMMAND [ARGUMENT]...")]
pub(crate) struct Exec {
    /// Leave it running
    #[arg(short, long)]
    detach: bool,
    /// Pass stdin on to the command
    #[arg(short, long, conflicts_with = "detach")]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long, conflicts_with = "detach")]
    tty: bool,
    /// Set a variable; without a value, to the one it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Working directory of the command [default: the container's]
    #[arg(short = 'w', long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// User of the command [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Container
    id: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, required = true)]
    words: Vec<String>,
}

impl Exec {
    /// Runs it.
    ///
    /// # Errors
    /// What kept it from running.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<ExitCode> {
        if self.tty && self.interactive && !terminal::is_interactive() {
            return Err(Error::said(
                "-i with -t needs a terminal, and stdin is none",
            ));
        }
        let process = Process {
            connection: connection.clone(),
            container: self.id.clone(),
            exec: format!("exec-{}", random::id()?),
        };
        let spec = self.process_spec(connection).await?;
        let streams = Streams {
            input: self.interactive,
            terminal: self.tty,
        };
        let fifos = if self.detach {
            None
        } else {
            Some(Fifos::new(streams)?)
        };
        let name = |of: fn(&Fifos) -> String| fifos.as_ref().map(of).unwrap_or_default();
        let request = ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: process.exec.clone(),
            stdin: name(Fifos::stdin),
            stdout: name(Fifos::stdout),
            stderr: name(Fifos::stderr),
            terminal: self.tty,
            spec: Some(Any {
                type_url: spec::PROCESS_TYPE.to_owned(),
                value: spec.to_string().into_bytes(),
            }),
        };
        let mut signals = signals::listen()?;
        let mode = RawMode::for_streams(streams)?;
        let started = async {
            let added = async { connection.tasks().exec(request).await.about(&self.id) };
            if unless_ended(&mut signals, added).await?.is_none() {
                return Ok(None);
            }
            let start = async {
                process.start().await?;
                fifos.map(Fifos::attach).transpose()
            };
            unless_hung(&mut signals, start).await
        };
        match started.await {
            Ok(Some(None)) => Ok(ExitCode::SUCCESS),
            Ok(Some(Some(mut relays))) => {
                let ended = process.accompany(&mut relays, &mut signals, self.tty).await;
                drop(mode);
                // How it ended counts, even if what is left of it cannot be removed.
                if (ended.is_ok() || connection.is_there().await)
                    && let Ok(Err(error)) = timeout(DELETE_LIMIT, delete(&process)).await
                {
                    output::complain(&error);
                }
                ended.map(exit_code)
            }
            Ok(None) => {
                let kill = nix::sys::signal::Signal::SIGKILL;
                let _ = process.kill(signals::number(kill), false).await;
                let text = format!("{}: not started: asked to end", self.id);
                delete(&process).await.and(Err(Error::said(text)))
            }
            Err(error) => {
                // Whether or not it got so far as to be there.
                let _ = delete(&process).await;
                Err(error)
            }
        }
    }

    /// The process of the container's spec, with what is said otherwise. It is changed as JSON, so
    /// that what this program does not know of stays.
    async fn process_spec(&self, connection: &Connection) -> Result<Value> {
        let request = GetContainerRequest {
            id: self.id.clone(),
        };
        let answer = connection.containers().get(request).await;
        let record = answer.about(&self.id)?.into_inner().container;
        let bytes = record.and_then(|record| record.spec).unwrap_or_default();
        let refuse = |why: &str| Error::said(format!("{}: its spec {why}", self.id));
        let mut spec: Value = serde_json::from_slice(&bytes.value)
            .map_err(|error| refuse(&format!("cannot be read: {error}")))?;
        let process = spec
            .get_mut("process")
            .map(Value::take)
            .filter(Value::is_object);
        let mut process = process.ok_or_else(|| refuse("has no process"))?;
        process["args"] = json!(self.words);
        process["terminal"] = json!(self.tty);
        // The size is that of this terminal, not of the one the container was made on.
        let size = terminal::size().filter(|_| self.tty);
        process["consoleSize"] = match size {
            Some((width, height)) => json!({ "width": width, "height": height }),
            None => Value::Null,
        };
        let known = process["env"].as_array().into_iter().flatten();
        let known = known.filter_map(Value::as_str).map(str::to_owned);
        let mut variables: Vec<String> = known.collect();
        if self.tty && !variables.iter().any(|known| known.starts_with("TERM=")) {
            variables.push("TERM=xterm".to_owned());
        }
        spec::add_variables(&mut variables, &self.env);
        process["env"] = json!(variables);
        if let Some(cwd) = &self.cwd {
            process["cwd"] = json!(cwd);
        }
        if let Some(user) = &self.user {
            process["user"] = json!(self.find_user(connection, user).await?);
        }
        Ok(process)
    }

    /// Looks the user up where the container's first process sees its files.
    async fn find_user(
        &self,
        connection: &Connection,
        user: &str,
    ) -> Result<oci_spec::runtime::User> {
        let first = Process {
            connection: connection.clone(),
            container: self.id.clone(),
            exec: String::new(),
        };
        let pid = first.state().await?.pid;
        spec::find_user(&PathBuf::from(format!("/proc/{pid}/root")), user)
    }
}

async fn delete(process: &Process) -> Result<()> {
    let connection = &process.connection;
    let deleted = connection.persist(|| async {
        let request = DeleteProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
        };
        connection.tasks().delete_process(request).await
    });
    match deleted.await {
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        done => done.map(drop).about(process.name()),
    }
}
