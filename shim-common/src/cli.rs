//! The command line of a shim (shim-contract section 1.1): Go's flag syntax, since containerd and
//! scripts write it that way.
//!
//! `-x` and `--x` are the same; a value follows as `-x=v` or as the next argument; a boolean takes
//! only the first form; the first argument that is no flag, or what follows `--`, is the action.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What a shim was called to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Bring up a serving shim and print its address.
    Start,
    /// Remove what a shim left behind and print how its container ended.
    Delete,
    /// Serve, the action without a name.
    Serve,
    /// Print what the runtime can do.
    Info,
    /// Print the version.
    Version,
}

/// The flags, as they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// containerd's namespace of the container.
    pub namespace: String,
    /// The container's id.
    pub id: String,
    /// containerd's gRPC address; part of what a socket's name is made of.
    pub address: String,
    /// containerd's binary, which once published events; unused.
    pub publish_binary: String,
    /// The bundle, if it is not the working directory.
    pub bundle: PathBuf,
    /// The socket to serve on, if it is not descriptor 3.
    pub socket: PathBuf,
    /// The debug socket, if it is not descriptor 4.
    pub debug_socket: PathBuf,
    /// Whether to log more.
    pub debug: bool,
    info: bool,
    version: bool,
}

/// A command line that made sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub action: Action,
    /// With which flags.
    pub flags: Flags,
}

/// Why there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CliError {
    /// `-h`: the usage belongs on stderr, the exit code is 0.
    Help,
    /// A flag that is unknown or badly written: the text and the usage belong on stderr, the exit
    /// code is 2, as with Go's flag package.
    Flag(String),
    /// Flags that are well written and make no sense: exit code 1.
    Refused(&'static str),
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help => f.write_str("help requested"),
            Self::Flag(text) => f.write_str(text),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CliError {}

/// Reads the arguments after the program's name.
///
/// # Errors
/// See [`CliError`]; an empty namespace is refused except for `-v` and `-info`.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    let mut flags = Flags::default();
    let mut action = None;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.as_bytes().strip_prefix(b"-").filter(|rest| !rest.is_empty()) else {
            action = Some(arg);
            break;
        };
        let flag = flag.strip_prefix(b"-").unwrap_or(flag);
        if flag.is_empty() {
            action = args.next();
            break;
        }
        if flag.starts_with(b"-") || flag.starts_with(b"=") {
            return Err(CliError::Flag(format!("bad flag syntax: {}", arg.to_string_lossy())));
        }
        let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
            Some(at) => (&flag[..at], Some(OsStr::from_bytes(&flag[at + 1..]).to_owned())),
            None => (flag, None),
        };
        flags.set(&String::from_utf8_lossy(name), value, &mut args)?;
    }
    let action = if flags.version {
        Action::Version
    } else if flags.info {
        Action::Info
    } else if flags.namespace.is_empty() {
        return Err(CliError::Refused("shim namespace cannot be empty"));
    } else {
        match action.as_deref().map(OsStr::as_bytes) {
            Some(b"start") => Action::Start,
            Some(b"delete") => Action::Delete,
            // Any other word serves, as with the Go shims.
            _ => Action::Serve,
        }
    };
    Ok(Invocation { action, flags })
}

impl Flags {
    /// Sets one flag, with a value from `rest` if it needs one and `given` holds none.
    fn set(
        &mut self,
        name: &str,
        given: Option<OsString>,
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), CliError> {
        let boolean = match name {
            "debug" => Some(&mut self.debug),
            "info" => Some(&mut self.info),
            "v" | "version" => Some(&mut self.version),
            _ => None,
        };
        if let Some(target) = boolean {
            *target = parse_bool(name, given.as_deref())?;
            return Ok(());
        }
        let text = match name {
            "namespace" => Some(&mut self.namespace),
            "id" => Some(&mut self.id),
            "address" => Some(&mut self.address),
            "publish-binary" => Some(&mut self.publish_binary),
            _ => None,
        };
        let path = match name {
            "bundle" => Some(&mut self.bundle),
            "socket" => Some(&mut self.socket),
            "debug-socket" => Some(&mut self.debug_socket),
            _ => None,
        };
        if text.is_none() && path.is_none() {
            return Err(match name {
                "h" | "help" => CliError::Help,
                _ => CliError::Flag(format!("flag provided but not defined: -{name}")),
            });
        }
        let Some(value) = given.or_else(|| rest.next()) else {
            return Err(CliError::Flag(format!("flag needs an argument: -{name}")));
        };
        if let Some(text) = text {
            *text = String::from_utf8(value.into_vec()).map_err(|error| {
                let value = String::from_utf8_lossy(error.as_bytes()).into_owned();
                CliError::Flag(format!("invalid value {value:?} for flag -{name}: not UTF-8"))
            })?;
        } else if let Some(path) = path {
            *path = value.into();
        }
        Ok(())
    }
}

/// A boolean flag: present, or with one of the values Go knows.
fn parse_bool(name: &str, value: Option<&OsStr>) -> Result<bool, CliError> {
    match value.map(OsStr::as_bytes) {
        None | Some(b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True") => Ok(true),
        Some(b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False") => Ok(false),
        Some(other) => Err(CliError::Flag(format!(
            "invalid boolean value {:?} for -{name}: parse error",
            String::from_utf8_lossy(other)
        ))),
    }
}

/// The list of flags, as it is printed for `-h` and below an error of a flag.
pub fn usage(program: &str) -> String {
    const FLAGS: [(&str, &str, &str); 11] = [
        ("address", "string", "gRPC address of containerd"),
        ("bundle", "string", "the bundle, if it is not the working directory"),
        ("debug", "", "log more"),
        ("debug-socket", "string", "accepted and unused: there is no debug service"),
        ("id", "string", "the container's id"),
        ("info", "", "print what the runtime can do, as protobuf, and exit"),
        ("namespace", "string", "containerd's namespace of the container"),
        ("publish-binary", "string", "accepted and unused: events go over ttrpc"),
        ("socket", "string", "the socket to serve on, if it is not descriptor 3"),
        ("v", "", "print the version and exit"),
        ("version", "", "print the version and exit"),
    ];
    let mut text = format!("Usage of {program}:\n");
    for (name, kind, meaning) in FLAGS {
        let space = if kind.is_empty() { "" } else { " " };
        text.push_str(&format!("  -{name}{space}{kind}\n    \t{meaning}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_words(line: &str) -> Result<Invocation, CliError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_containerd_writes_is_understood() {
        let got = parse_words(
            "-namespace moby -address /run/c.sock -publish-binary /usr/bin/containerd -id abc \
             -debug start",
        )
        .unwrap();
        assert_eq!(got.action, Action::Start);
        assert_eq!((got.flags.namespace.as_str(), got.flags.id.as_str()), ("moby", "abc"));
        assert_eq!(got.flags.address, "/run/c.sock");
        assert!(got.flags.debug);
        let got = parse_words("--namespace=n --bundle=/b=c --id x delete -debug").unwrap();
        assert_eq!((got.action, got.flags.debug), (Action::Delete, false));
        assert_eq!(got.flags.bundle, PathBuf::from("/b=c"));
    }

    #[test]
    fn actions_are_told_apart_as_go_does() {
        for (line, action) in [
            ("-v", Action::Version),
            ("--version", Action::Version),
            ("-v=true -info", Action::Version),
            ("-info", Action::Info),
            ("-namespace n", Action::Serve),
            ("-namespace n bogus start", Action::Serve),
            ("-namespace n - start", Action::Serve),
            ("-namespace n -- start", Action::Start),
            ("-namespace n -v=0 start", Action::Start),
            ("-namespace -id start", Action::Start),
        ] {
            assert_eq!(parse_words(line).unwrap().action, action, "{line}");
        }
    }

    #[test]
    fn errors_are_worded_as_go_words_them() {
        for (line, text) in [
            ("-foo", "flag provided but not defined: -foo"),
            ("-namespace x -id", "flag needs an argument: -id"),
            ("-debug=maybe", "invalid boolean value \"maybe\" for -debug: parse error"),
            ("-=x", "bad flag syntax: -=x"),
            ("---v", "bad flag syntax: ---v"),
        ] {
            assert_eq!(parse_words(line), Err(CliError::Flag(text.to_owned())), "{line}");
        }
        assert_eq!(parse_words("-h -foo"), Err(CliError::Help));
        for line in ["", "start", "- start", "-v=0", "-namespace= start"] {
            assert_eq!(
                parse_words(line),
                Err(CliError::Refused("shim namespace cannot be empty")),
                "{line}"
            );
        }
    }

    #[test]
    fn usage_names_every_flag() {
        let text = usage("shim");
        for name in ["namespace", "id", "address", "socket", "debug-socket", "bundle", "version"] {
            assert!(text.contains(&format!("  -{name}")), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_command_line_is_fatal(args in prop::collection::vec(prop::collection::vec(1_u8.., 0..12), 0..6)) {
            let _ = parse(args.into_iter().map(OsString::from_vec));
        }

        #[test]
        fn both_spellings_of_a_value_mean_the_same(value in "[^-\0][^\0]{0,20}") {
            let joined = parse([OsString::from(format!("-namespace={value}")), "start".into()]);
            let apart = parse(["--namespace".into(), OsString::from(&value), "start".into()]);
            prop_assert_eq!(joined.unwrap(), apart.unwrap());
        }
    }
}
