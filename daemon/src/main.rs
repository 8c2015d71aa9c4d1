//! The binary `wherryd`: from the command line to the library.

use std::io::Write;
use std::process::ExitCode;

use daemon::cli::{self, Cli, Command};
use daemon::config::{Config, Remark};
use daemon::{log, publish, serve};

fn main() -> ExitCode {
    match cli::parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "wherryd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), String> {
    let say = |text: &str| {
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| format!("stdout: {error}"))
    };
    match cli.command {
        Command::Version => say(&format!("wherryd {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Help => say(cli::HELP),
        Command::Publish {
            ref topic,
            ref namespace,
        } => {
            let mut address = effective(&cli)?.0.address.into_os_string();
            address.push(".ttrpc");
            let work = publish::publish(address.as_ref(), topic.clone(), namespace.clone());
            runtime()?.block_on(work)
        }
        Command::ConfigDefault => say(&Config::default().dump()),
        Command::ConfigDump => say(&effective(&cli)?.0.dump()),
        Command::ConfigCheck => {
            let (_, remarks) = effective(&cli)?;
            for remark in &remarks {
                say(&format!("{remark}\n"))?;
            }
            match remarks.len() {
                0 => Ok(()),
                count => Err(format!("{count} keys have no effect")),
            }
        }
        Command::Serve => {
            let (config, remarks) = effective(&cli)?;
            log::init(&config.log_level)?;
            for remark in &remarks {
                ::log::warn!("{remark}");
            }
            sys::process::arena_limit();
            let runtime = runtime()?;
            let served = runtime.block_on(serve::serve(config));
            // What still runs on the blocking pool does not hold up the end.
            runtime.shutdown_background();
            served
        }
    }
}

/// What is in force: the flags before everything else.
fn effective(cli: &Cli) -> Result<(Config, Vec<Remark>), String> {
    let (mut config, remarks) =
        Config::load(cli.config.as_deref()).map_err(|refusal| refusal.to_string())?;
    if let Some(root) = &cli.root {
        config.root.clone_from(root);
    }
    if let Some(state) = &cli.state {
        config.state.clone_from(state);
    }
    if let Some(address) = &cli.address {
        config.address.clone_from(address);
    }
    if let Some(level) = &cli.log_level {
        config.log_level.clone_from(level);
    }
    Ok((config, remarks))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .enable_all()
        .build()
        .map_err(|error| format!("tokio: {error}"))
}
