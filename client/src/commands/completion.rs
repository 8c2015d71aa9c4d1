//! `wherry completion`: a script that lets a shell complete this program's words.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::Result;
use crate::output;

/// Print the completion script of a shell
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Prints it.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn execute(self) -> Result<()> {
        let mut script = Vec::new();
        let mut cli = Cli::command();
        clap_complete::generate(self.shell, &mut cli, "wherry", &mut script);
        output::say(String::from_utf8_lossy(&script).trim_end())
    }
}
