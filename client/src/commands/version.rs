//! `wherry version`: this program's version and the daemon's.

use clap::Args;
use serde_json::json;

use crate::cli::{Daemon, Format};
use crate::connection::Connection;
use crate::error::{Context, Result};
use crate::output;

/// Show the versions of this program and of the daemon
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// How to write them
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Version {
    /// Shows them; this program's also when no daemon answers.
    ///
    /// # Errors
    /// No daemon answers.
    pub(crate) async fn execute(self, daemon: &Daemon) -> Result<()> {
        let ours = env!("CARGO_PKG_VERSION");
        if self.format == Format::Table {
            output::say(format_args!("client:   wherry {ours}"))?;
        }
        let connection = Connection::open(daemon).await?;
        let theirs = connection.version().version(()).await;
        let theirs = theirs.about("version")?.into_inner();
        let socket = connection.socket();
        if self.format == Format::Table {
            let (version, revision) = (&theirs.version, &theirs.revision);
            return output::say(format_args!("server:   {version} {revision} at {socket}"));
        }
        let versions = json!({
            "client": { "version": ours },
            "server": {
                "version": theirs.version,
                "revision": theirs.revision,
                "address": socket,
            },
        });
        output::json(&versions, false)
    }
}
