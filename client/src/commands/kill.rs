//! `wherry kill`: sends a signal to containers.

use clap::Args;

use super::tell;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::process::Process;
use crate::signals;

/// Send a signal to containers
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Which signal: a name or a number
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", value_parser = signals::parse)]
    signal: u32,
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
            let sent = first.kill(self.signal, self.all).await;
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
