//! The command line: containerd's flags with containerd's meaning, so that the daemon can stand
//! in under that name.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// What `--help` prints.
pub const HELP: &str = "\
wherryd - containerd's API for containerd's shims, in one small daemon

usage: wherryd [flags] [command]

Without a command it serves. Without flags it reads /etc/containerd/config.toml if that is there,
keeps what must survive in /var/lib/containerd and the rest in /run/containerd, and serves at
/run/containerd/containerd.sock, where ctr, nerdctl and Docker look for it.

commands:
  config default   print the defaults, as a file of version 2
  config dump      print what is in force, imports and flags included, likewise
  config migrate   print the main file, whatever its version, likewise
  config check     print each problem as FILE:LINE: problem; remedy. The status is 1 if one of
                   them is an error, for which the daemon would not start; 0 with warnings only
  import           take over the records of containers of a containerd that has been stopped and
                   had the same root folder; wherryd must be stopped as well
  verify [--repair] [--format text|json]
                   check blobs, snapshots and records against each other, and with --repair mend
                   what can be mended; wherryd must be stopped. The status is 0 if all is well
                   (or mended), 1 if a problem is left, 2 if nothing could be checked
  publish --topic T --namespace N
                   publish the event on stdin (for shims and hooks)
  oci-hook -- PROGRAM [ARGUMENTS]
                   run a hook of a container with {{id}}, {{pid}}, {{bundle}}, {{rootfs}},
                   {{status}} and {{annotation \"KEY\"}} filled in from the state on stdin

flags:
  -c, --config FILE       configuration file (default /etc/containerd/config.toml)
  -l, --log-level LEVEL   trace, debug, info, warn, error, fatal or panic
  -a, --address SOCKET    address of the gRPC socket
      --root DIR          folder of what must survive a reboot
      --state DIR         folder of what must not
      --base DIR          everything below one folder, for a daemon that nobody has installed:
                          DIR/root, DIR/state, DIR/wherryd.sock, DIR/wherryd.log, and
                          DIR/config.toml if it is there. Also the variable WHERRY_BASE
  -v, --version           print the version
  -h, --help              print this

Flags may have one dash or two, and their value after `=` or as the next argument. They go before
what the file says.
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
    /// Run a program with what an OCI runtime told about a container filled in.
    OciHook(Vec<OsString>),
    /// Print the default configuration.
    ConfigDefault,
    /// Print the configuration in force.
    ConfigDump,
    /// Print the configuration file in the words of the version that is written.
    ConfigMigrate,
    /// Print what is to be said about the configuration file.
    ConfigCheck,
    /// Take over the records of another containerd.
    Import,
    /// Check what is on disk.
    Verify {
        /// Mend what can be mended.
        repair: bool,
        /// Write findings as objects of JSON.
        json: bool,
    },
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
    pub base: Option<PathBuf>,
    pub address: Option<PathBuf>,
    pub log_level: Option<String>,
}

/// A flag that takes a value: its names. The last one counts.
type Valued = &'static [&'static str];

const GLOBAL: [Valued; 6] = [
    &["c", "config"],
    &["l", "log-level"],
    &["a", "address"],
    &["root"],
    &["state"],
    &["base"],
];
const VERIFY: [Valued; 1] = [&["format"]];
const PUBLISH: [Valued; 2] = [&["topic"], &["namespace"]];

/// Arguments that are taken one after the other.
struct Arguments {
    rest: std::vec::IntoIter<OsString>,
    /// `-v` or `-h`, when one of them was seen.
    asked: Option<Command>,
    /// Whether there may be `--repair`, and whether it was seen.
    repair: Option<bool>,
}

impl Arguments {
    /// Takes the flags up to the first argument that is none, which is answered as well. As with
    /// Go's flags, `--` ends them.
    fn flags(
        &mut self,
        known: &[Valued],
    ) -> Result<(HashMap<&'static str, OsString>, Option<String>), String> {
        let mut values = HashMap::new();
        while let Some(argument) = self.rest.next() {
            let text = argument
                .to_str()
                .ok_or_else(|| format!("{}: not UTF-8", argument.display()))?;
            let Some(flag) = text.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
                return Ok((values, Some(text.to_owned())));
            };
            if text == "--" {
                return Ok((
                    values,
                    self.rest
                        .next()
                        .map(|next| next.to_string_lossy().into_owned()),
                ));
            }
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let asked = match name {
                "v" | "version" => Some(Command::Version),
                "h" | "help" => Some(Command::Help),
                _ => None,
            };
            let repairs = name == "repair" && self.repair.is_some();
            if asked.is_some() || repairs {
                let on = match inline {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(value) => return Err(format!("-{name}: {value:?} is not true or false")),
                };
                if repairs {
                    self.repair = Some(on);
                } else if on {
                    self.asked = self.asked.take().or(asked);
                }
                continue;
            }
            let names = known
                .iter()
                .find(|names| names.contains(&name))
                .ok_or_else(|| format!("flag provided but not defined: -{name}; see --help"))?;
            let value = match inline {
                Some(value) => value.into(),
                None => self
                    .rest
                    .next()
                    .ok_or_else(|| format!("flag needs an argument: -{name}"))?,
            };
            values.insert(names[names.len() - 1], value);
        }
        Ok((values, None))
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// A text that names the argument.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, String> {
    let mut arguments = Arguments {
        rest: arguments.into_iter().collect::<Vec<_>>().into_iter(),
        asked: None,
        repair: None,
    };
    let (mut flags, word) = arguments.flags(&GLOBAL)?;
    let mut path = |name: &str| flags.remove(name).map(PathBuf::from);
    let mut cli = Cli {
        command: Command::Serve,
        config: path("config"),
        root: path("root"),
        state: path("state"),
        base: path("base"),
        address: path("address"),
        log_level: path("log-level").map(|level| level.to_string_lossy().into_owned()),
    };
    cli.command = match word {
        None => Command::Serve,
        Some(word) => command(&word, &mut arguments)?,
    };
    if let Some(asked) = arguments.asked {
        cli.command = asked;
    }
    Ok(cli)
}

fn command(word: &str, arguments: &mut Arguments) -> Result<Command, String> {
    let text = |value: Option<OsString>| value.unwrap_or_default().to_string_lossy().into_owned();
    let (command, next) = match word {
        "publish" => {
            let (mut flags, next) = arguments.flags(&PUBLISH)?;
            let topic = text(flags.remove("topic"));
            let namespace = text(flags.remove("namespace"));
            (Command::Publish { topic, namespace }, next)
        }
        "import" => (Command::Import, arguments.flags(&[])?.1),
        "verify" => {
            arguments.repair = Some(false);
            let (mut flags, next) = arguments.flags(&VERIFY)?;
            let json = match text(flags.remove("format")).as_str() {
                "" | "text" => false,
                "json" => true,
                other => return Err(format!("-format: {other:?} is not text or json")),
            };
            let repair = arguments.repair == Some(true);
            (Command::Verify { repair, json }, next)
        }
        "oci-hook" => {
            let (_, program) = arguments.flags(&[])?;
            let all = program
                .map(OsString::from)
                .into_iter()
                .chain(arguments.rest.by_ref());
            return Ok(Command::OciHook(all.collect()));
        }
        "config" => {
            let (_, next) = arguments.flags(&[])?;
            let command = match next.as_deref() {
                Some("default") => Command::ConfigDefault,
                Some("dump") => Command::ConfigDump,
                Some("migrate") => Command::ConfigMigrate,
                Some("check") => Command::ConfigCheck,
                None | Some("help" | "h") => return Ok(Command::Help),
                Some(other) => return Err(format!("config {other}: no such command; see --help")),
            };
            (command, arguments.flags(&[])?.1)
        }
        "help" | "h" => return Ok(Command::Help),
        other => return Err(format!("{other}: no such command; see --help")),
    };
    match next {
        Some(next) if arguments.asked.is_none() => Err(format!("{next}: one argument too many")),
        _ => Ok(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn flags_are_those_of_containerd() {
        let cli = parsed("-c f --root=/r --state /s -address a --log-level=debug").unwrap();
        assert_eq!(cli.command, Command::Serve);
        assert_eq!(cli.config.as_deref(), Some("f".as_ref()));
        assert_eq!(cli.root.as_deref(), Some("/r".as_ref()));
        assert_eq!(cli.state.as_deref(), Some("/s".as_ref()));
        assert_eq!(cli.address.as_deref(), Some("a".as_ref()));
        assert_eq!(cli.log_level.as_deref(), Some("debug"));
        // The last one of two counts, under either name.
        assert_eq!(
            parsed("-a x --address=y").unwrap().address,
            Some("y".into())
        );
        assert_eq!(parsed("-l -v").unwrap().log_level.as_deref(), Some("-v"));
    }

    #[test]
    fn commands_are_those_of_containerd() {
        let (topic, namespace) = ("/t".to_owned(), "n".to_owned());
        for (line, command) in [
            ("", Command::Serve),
            ("-v", Command::Version),
            ("--version config dump", Command::Version),
            ("config", Command::Help),
            ("publish --help", Command::Help),
            ("--v=false", Command::Serve),
            ("-a x config default", Command::ConfigDefault),
            ("config migrate", Command::ConfigMigrate),
            ("--root /r import", Command::Import),
            (
                "--root /r verify --repair --format=json",
                Command::Verify {
                    repair: true,
                    json: true,
                },
            ),
            (
                "verify",
                Command::Verify {
                    repair: false,
                    json: false,
                },
            ),
            (
                "publish -topic /t --namespace=n",
                Command::Publish { topic, namespace },
            ),
            (
                "oci-hook -- p --pid={{pid}} -v",
                Command::OciHook(["p", "--pid={{pid}}", "-v"].map(OsString::from).into()),
            ),
        ] {
            assert_eq!(parsed(line).map(|cli| cli.command), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("--nothing", "-nothing"),
            ("--root", "-root"),
            ("serve", "serve"),
            ("--topic x", "-topic"),
            ("publish --root x", "-root"),
            ("config delete", "delete"),
            ("--repair verify", "-repair"),
            ("verify --format xml", "xml"),
            ("verify all", "all"),
            ("config dump more", "more"),
            ("--help=maybe", "maybe"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
