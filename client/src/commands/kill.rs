//! `wherry kill`: sends a signal to containers.

use clap::Args;
use core_api::containers::GetContainerRequest;
use nix::sys::signal::Signal;

use super::run::STOP_SIGNAL;
use super::tell;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::process::Process;
use crate::signals;

/// Send a signal to containers
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Which signal: a name or a number [default: the one its image names, or TERM]
    #[arg(short, long, value_name = "SIGNAL", value_parser = signals::parse)]
    signal: Option<u32>,
    /// To every process, not only the first
    #[arg(long)]
    all: bool,
    /// Containers
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Kill {
    /// Sends it.
    ///
    /// # Errors
    /// Some were refused; told already.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let mut all = Ok(());
        for id in self.ids {
            let first = Process {
                connection: connection.clone(),
                container: id.clone(),
                exec: String::new(),
            };
            let signal = match self.signal {
                Some(signal) => signal,
                None => stop_signal(connection, &id).await,
            };
            let sent = first.kill(signal, self.all).await;
            let sent = match sent {
                Err(error) if error.is_not_found() => {
                    Err(Error::said(format!("{id}: no such container runs")))
                }
                other => other,
            };
            tell(&mut all, sent);
        }
        all
    }
}

/// The signal by which a container wants to be ended. One without a record, or whose image names
/// none that there is, gets the usual.
async fn stop_signal(connection: &Connection, id: &str) -> u32 {
    let request = GetContainerRequest { id: id.to_owned() };
    let record = connection.containers().get(request).await;
    let record = record.ok().and_then(|answer| answer.into_inner().container);
    let label = record.and_then(|record| record.labels.get(STOP_SIGNAL).cloned());
    let said = label.and_then(|label| signals::parse(&label).ok());
    said.unwrap_or_else(|| signals::number(Signal::SIGTERM))
}
