//! The commands, one per file.

pub(crate) mod completion;
pub(crate) mod df;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod tag;
pub(crate) mod version;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::output;

/// Carries out what the command line says; answers the exit code.
///
/// # Errors
/// Those of the command.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    let daemon = &cli.daemon;
    match cli.command {
        Command::Run(run) => run.execute(daemon).await,
        Command::Exec(exec) => exec.execute(&Connection::open(daemon).await?).await,
        Command::Ps(ps) => done(ps.execute(&Connection::open(daemon).await?).await),
        Command::Pull(pull) => done(pull.execute(&Connection::open(daemon).await?).await),
        Command::Push(push) => done(push.execute(&Connection::open(daemon).await?).await),
        Command::Kill(kill) => done(kill.execute(&Connection::open(daemon).await?).await),
        Command::Rm(rm) => done(rm.execute(&Connection::open(daemon).await?).await),
        Command::Inspect(inspect) => done(inspect.execute(&Connection::open(daemon).await?).await),
        Command::Events(events) => done(events.execute(&Connection::open(daemon).await?).await),
        Command::Import(import) => done(import.execute(&Connection::open(daemon).await?).await),
        Command::Export(export) => done(export.execute(&Connection::open(daemon).await?).await),
        Command::Images(images) => done(images.execute(&Connection::open(daemon).await?).await),
        Command::Tag(tag) => done(tag.execute(&Connection::open(daemon).await?).await),
        Command::Rmi(rmi) => done(rmi.execute(&Connection::open(daemon).await?).await),
        Command::Df(df) => done(df.execute(&Connection::open(daemon).await?).await),
        Command::Prune(prune) => done(prune.execute(&Connection::open(daemon).await?).await),
        Command::Completion(completion) => done(completion.execute()),
        Command::Version(version) => done(version.execute(daemon).await),
    }
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}

/// An exit status of a process as ours.
fn exit_code(status: u32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

/// Reads how many things are done at once.
///
/// # Errors
/// It is no such number.
fn parallel(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=64).contains(number));
    number.ok_or_else(|| "it is a number from 1 to 64".to_owned())
}

/// Passes on whether something was done to one of several things; a failure is told at once, and
/// the others go on.
fn tell(all: &mut Result<()>, one: Result<()>) {
    if let Err(error) = one {
        output::complain(&error);
        *all = Err(Error::Told);
    }
}
