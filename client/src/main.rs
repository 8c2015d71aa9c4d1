//! `wherry`, the command for people: runs and looks at containers through containerd's own API,
//! of `wherryd` or of any containerd.

mod archive;
mod cli;
mod commands;
mod connection;
mod error;
mod image;
mod output;
mod process;
mod random;
mod registry;
mod signals;
mod spec;
mod stdio;
mod terminal;
mod time;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return cli::refuse(&refusal),
    };
    let own_failure = cli.command.own_failure();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(fault) => Err(error::Error::io("the event loop", fault)),
    };
    match done {
        Ok(code) => code,
        Err(fault) => fault.report(own_failure),
    }
}
