//! The command line: what people may say, and how a mistake in it is answered.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    completion, df, events, exec, export, images, import, inspect, kill, prune, ps, pull, push, rm,
    rmi, run, tag, version,
};

/// Exit code of `run` and `exec` when they, and not the container, failed: it leaves the low codes
/// to the container, as Docker's does.
pub(crate) const RUN_FAILED: u8 = 125;

const AFTER_HELP: &str = "\
Exit codes: `run` and `exec` answer the exit code of the container's process (128 + N when signal N \
ended it), 125 when they failed themselves, 126 when the command cannot be executed, 127 when it is \
not there. The others answer 0, 1 after a failure and 2 for a wrong command line.";

/// Runs and looks at containers and their images, through wherryd or any containerd.
#[derive(Debug, Parser)]
#[command(name = "wherry", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which daemon, and whose containers.
#[derive(Debug, clap::Args)]
pub(crate) struct Daemon {
    /// Socket of the daemon
    #[arg(
        short,
        long,
        value_name = "SOCKET",
        env = "CONTAINERD_ADDRESS",
        default_value = "/run/containerd/containerd.sock"
    )]
    pub(crate) address: String,
    /// Namespace of the containers
    #[arg(
        short,
        long,
        value_name = "NAME",
        env = "CONTAINERD_NAMESPACE",
        default_value = "default"
    )]
    pub(crate) namespace: String,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<run::Run>),
    Ps(ps::Ps),
    Pull(Box<pull::Pull>),
    Push(Box<push::Push>),
    Exec(Box<exec::Exec>),
    Kill(kill::Kill),
    Rm(rm::Rm),
    Inspect(inspect::Inspect),
    Events(events::Events),
    Images(images::Images),
    Import(import::Import),
    Export(export::Export),
    Tag(tag::Tag),
    Rmi(rmi::Rmi),
    Df(df::Df),
    Prune(prune::Prune),
    Version(version::Version),
    Completion(completion::Completion),
}

impl Command {
    /// The exit code when the command itself, not a container, fails.
    pub(crate) fn own_failure(&self) -> u8 {
        match self {
            Self::Run(_) | Self::Exec(_) => RUN_FAILED,
            _ => 1,
        }
    }
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Says what is wrong with the command line (or the help that was asked for), and answers the
/// exit code.
pub(crate) fn refuse(refusal: &clap::Error) -> ExitCode {
    // A closed pipe behind `--help` is no fault of ours.
    let _ = refusal.print();
    let code = if !refusal.use_stderr() {
        0
    } else if names_a_run(std::env::args_os().skip(1)) {
        RUN_FAILED
    } else {
        2
    };
    ExitCode::from(code)
}

/// Whether the command in a line that could not be read whole is `run` or `exec`.
fn names_a_run(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("-a" | "--address" | "-n" | "--namespace") => {
                arguments.next();
            }
            Some(flag) if flag.starts_with('-') => {}
            word => return matches!(word, Some("run" | "exec")),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_line_is_told_to_be_a_run() {
        let told = |line: &str| names_a_run(line.split_whitespace().map(Into::into));
        assert!(told("-a run run --nonsense"));
        assert!(told("--namespace=x exec"));
        assert!(!told("-n run ps --nonsense"));
        assert!(!told(""));
    }

    #[test]
    fn what_follows_the_command_belongs_to_it() {
        let line = "wherry run --rootfs /r ls -a --rm";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(run.words, ["ls", "-a", "--rm"]);
        assert!(!run.rm);
    }
}
