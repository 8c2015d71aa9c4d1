//! The binary `wherryd`: from the command line to the library.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use daemon::cli::{self, Cli, Command};
use daemon::config::{self, Config, Problem};
use daemon::{import, log, oci_hook, publish, serve, verify, version};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let program = Path::new(&program)
        .file_name()
        .unwrap_or_else(|| "wherryd".as_ref());
    let program = program.to_string_lossy().into_owned();
    let parsed = cli::parse(arguments).map(|mut cli| {
        let base = || std::env::var_os("WHERRY_BASE").filter(|base| !base.is_empty());
        cli.base = cli.base.or_else(|| base().map(PathBuf::from));
        cli
    });
    // Its status 1 says that there are problems: what kept it from looking is another.
    let verifies = std::env::args_os().any(|argument| argument == "verify");
    match parsed.and_then(|cli| run(cli, &program)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.is_empty() {
                return ExitCode::FAILURE;
            }
            let _ = writeln!(std::io::stderr(), "{program}: {error}");
            ExitCode::from(if verifies { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli, program: &str) -> Result<(), String> {
    match cli.command {
        Command::Version => say(&version::line(program)),
        Command::Help => say(cli::HELP),
        Command::Publish {
            ref topic,
            ref namespace,
        } => {
            let address = events_address(&cli)?;
            let work = publish::publish(&address, topic.clone(), namespace.clone());
            runtime()?.block_on(work)
        }
        Command::OciHook(ref command) => oci_hook::run(command),
        Command::ConfigDefault => say(&start(&cli).0.dump()),
        Command::ConfigDump => say(&told(effective(&cli))?.0.dump()),
        Command::ConfigMigrate => {
            let file = start(&cli).1;
            say(&told(config::migrate(&file))?)
        }
        Command::ConfigCheck => {
            let (problems, outcome) = match effective(&cli) {
                Ok((_, problems)) => (problems, Ok(())),
                // The problems say it all.
                Err(problems) => (problems, Err(String::new())),
            };
            for problem in &problems {
                say(&format!("{problem}\n"))?;
            }
            outcome
        }
        Command::Import => {
            let config = told(effective(&cli))?.0;
            let imported = runtime()?.block_on(import::import(&config))?;
            for (what, names) in [
                ("taken over", &imported.containers),
                ("already here", &imported.known),
                ("cannot be taken over", &imported.refused),
            ] {
                for name in names {
                    say(&format!("{what}: {name}\n"))?;
                }
            }
            match imported.refused.len() {
                0 => Ok(()),
                count => Err(format!("{count} containers were not taken over")),
            }
        }
        Command::Verify { repair, json } => {
            let config = told(effective(&cli))?.0;
            // What cannot be written is no reason to leave a repair half way.
            let mut tell = |finding: &verify::Finding| {
                let line = if json {
                    finding.json()
                } else {
                    finding.to_string()
                };
                let _ = say(&format!("{line}\n"));
            };
            let progress = verify::Progress::stderr();
            let outcome = verify::verify(&config, repair, &progress, &mut tell)?;
            let _ = writeln!(std::io::stderr(), "{}", outcome.sum);
            match outcome.problems {
                0 => Ok(()),
                // The findings say it all.
                _ => Err(String::new()),
            }
        }
        Command::Serve => {
            let (config, problems) = told(effective(&cli))?;
            let file = cli.base.as_ref().map(|base| base.join("wherryd.log"));
            log::init(&config.log_level, &config.log_format, file.as_deref())?;
            if let Some(file) = &file {
                let (address, file) = (config.address.display(), file.display());
                let _ = writeln!(
                    std::io::stderr(),
                    "{program}: address {address}, log {file}"
                );
            }
            for problem in &problems {
                ::log::warn!("{problem}");
            }
            sys::process::arena_limit();
            let runtime = runtime()?;
            let served = runtime.block_on(serve::serve(config));
            // What still runs on the blocking pool does not hold up the end.
            runtime.shutdown_background();
            if let (Err(error), true) = (&served, cli.base.is_some()) {
                ::log::error!("{error}");
            }
            served
        }
    }
}

fn say(text: &str) -> Result<(), String> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("stdout: {error}"))
}

/// Why a file is refused, in one text.
fn told<T>(outcome: Result<T, Vec<Problem>>) -> Result<T, String> {
    outcome.map_err(|problems| {
        let errors = problems.iter().filter(|problem| problem.is_error);
        let lines: Vec<String> = errors.map(Problem::to_string).collect();
        lines.join("\n")
    })
}

/// What holds without a file, and where the file is.
fn start(cli: &Cli) -> (Config, PathBuf) {
    let base = cli.base.as_deref().map(absolute);
    let (config, default) = match &base {
        Some(base) => (Config::below(base), base.join("config.toml")),
        None => (Config::default(), config::DEFAULT_FILE.into()),
    };
    (config, cli.config.clone().unwrap_or(default))
}

/// What is in force: the flags before the file, the file before everything else.
fn effective(cli: &Cli) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let (mut config, file) = start(cli);
    // A file that is named must be there.
    let mut problems = if cli.config.is_some() || file.exists() {
        config.read(&file)?
    } else {
        Vec::new()
    };
    if let Some(root) = &cli.root {
        config.root = absolute(root);
    }
    if let Some(state) = &cli.state {
        config.state = absolute(state);
    }
    if let Some(address) = &cli.address {
        config.address = absolute(address);
    }
    if let Some(level) = &cli.log_level {
        config.log_level.clone_from(level);
    }
    problems.extend(import::hint(&config));
    Ok((config, problems))
}

/// Where the daemon takes events from shims and hooks: what it told the shim that calls, unless
/// another daemon is named; else beside that daemon's gRPC socket.
fn events_address(cli: &Cli) -> Result<PathBuf, String> {
    let told_to_shim = std::env::var_os("TTRPC_ADDRESS").filter(|address| !address.is_empty());
    let of_shim = std::env::var_os("GRPC_ADDRESS").map(PathBuf::from);
    match told_to_shim {
        Some(address) if cli.address.is_none() || cli.address == of_shim => Ok(address.into()),
        _ => Ok(told(effective(cli))?.0.ttrpc_socket().0),
    }
}

/// Where a path of the command line is: shims run in folders of their own.
fn absolute(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
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
