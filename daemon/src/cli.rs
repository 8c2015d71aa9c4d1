//! The command line: containerd's flags with containerd's meaning, so that the daemon can stand
//! in under that name.

use std::path::PathBuf;

/// What `--help` prints.
pub const HELP: &str = "\
wherryd - containerd's API for containerd's shims, in one small daemon

usage: wherryd [flags] [command]

commands:
  config default                    print the defaults
  config dump                       print what is in force
  config check                      print what the file says in vain, and what replaces it
  publish --topic T --namespace N   publish the event on stdin (what shims call)

flags:
  -c, --config FILE       configuration file (default /etc/containerd/config.toml)
  -l, --log-level LEVEL   trace, debug, info, warn, error, fatal or panic
  -a, --address SOCKET    address of the gRPC socket
      --root DIR          folder of what must survive a reboot
      --state DIR         folder of what must not
  -v, --version           print the version
  -h, --help              print this
";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Command {
    /// Serve.
    #[default]
    Serve,
    /// Publish one event to the daemon at the address.
    Publish {
        /// Topic of the event.
        topic: String,
        /// Namespace of the event.
        namespace: String,
    },
    /// Print the default configuration.
    ConfigDefault,
    /// Print the configuration in force.
    ConfigDump,
    /// Print what is to be said about the configuration file.
    ConfigCheck,
    /// Print the version.
    Version,
    /// Print the help.
    Help,
}

/// Flags before the command; they go before what the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each field is the flag of its name")]
pub struct Cli {
    pub command: Command,
    pub config: Option<PathBuf>,
    pub root: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub address: Option<PathBuf>,
    pub log_level: Option<String>,
}

/// Reads the arguments after the program's name. Flags may have one dash or two, and their value
/// after `=` or as the next argument.
///
/// # Errors
/// A text that names the argument.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Cli, String> {
    let mut cli = Cli::default();
    let (mut topic, mut namespace) = (String::new(), String::new());
    let mut words = Vec::new();
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix('-') else {
            words.push(argument);
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "v" | "version" => cli.command = Command::Version,
            "h" | "help" => cli.command = Command::Help,
            "c" | "config" | "root" | "state" | "a" | "address" | "l" | "log-level" | "topic"
            | "namespace" => {
                let value = inline
                    .or_else(|| rest.next())
                    .ok_or_else(|| format!("{argument}: a value is missing"))?;
                match name {
                    "c" | "config" => cli.config = Some(value.into()),
                    "root" => cli.root = Some(value.into()),
                    "state" => cli.state = Some(value.into()),
                    "a" | "address" => cli.address = Some(value.into()),
                    "topic" => topic = value,
                    "namespace" => namespace = value,
                    _ => cli.log_level = Some(value),
                }
            }
            _ => return Err(format!("{argument}: no such flag; see --help")),
        }
    }
    if cli.command != Command::Serve {
        return Ok(cli);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    cli.command = match words.as_slice() {
        [] => Command::Serve,
        ["publish"] => Command::Publish { topic, namespace },
        ["config", "default"] => Command::ConfigDefault,
        ["config", "dump"] => Command::ConfigDump,
        ["config", "check"] => Command::ConfigCheck,
        ["help"] => Command::Help,
        other => return Err(format!("{}: no such command; see --help", other.join(" "))),
    };
    Ok(cli)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_those_of_containerd() {
        let cli = parsed("-c f --root=/r --state /s -address a -l debug").unwrap();
        assert_eq!(cli.command, Command::Serve);
        assert_eq!(cli.root.as_deref(), Some("/r".as_ref()));
        assert_eq!(cli.address.as_deref(), Some("a".as_ref()));
        assert_eq!(cli.log_level.as_deref(), Some("debug"));
        let cli = parsed("--address a publish --topic /t --namespace n").unwrap();
        let (topic, namespace) = ("/t".to_owned(), "n".to_owned());
        assert_eq!(cli.command, Command::Publish { topic, namespace });
        assert_eq!(parsed("-v").unwrap().command, Command::Version);
        for line in ["--nothing", "--root", "serve"] {
            parsed(line).unwrap_err();
        }
    }
}
