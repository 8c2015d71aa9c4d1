//! The shim as a command: reads the command line and runs the action it names. Everything that
//! decides how a shim is started is here; the steps themselves are [`shim_common::start`]'s.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use shim_common::bootstrap::{StartRequest, read_stdin, served_environment, socket_dir_or_default};
use shim_common::cli::{self, Action, CliError, Flags, Invocation};
use shim_common::spec::{self, Spec};
use shim_common::start::{self, DEBUG_SOCKET_FD, SOCKET_FD, StartPlan};
use task_api::bootstrap::{SOCKET_DIR, env};
use task_api::bundle::{CONFIG, check_container_id, check_namespace};

pub use crate::flavor::Flavor;
use crate::{allocator, delete, info, runc};

/// The shims' version, as `-v` and `-info` tell it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, where the build says so.
pub const REVISION: &str = match option_env!("WHERRY_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The name of the served process (`comm`), which `ps` and `pgrep` look for: that of the Go shims
/// cut to the kernel's 15 bytes.
const PROCESS_NAME: &str = "containerd-shim";

/// What the served process works with.
#[derive(Debug)]
pub struct ServeArgs {
    /// Which of the two shims it is.
    pub flavor: Flavor,
    /// containerd's namespace of all its containers.
    pub namespace: String,
    /// The id of the container it was started for.
    pub id: String,
    /// containerd's gRPC address.
    pub address: String,
    /// Whether to log more.
    pub debug: bool,
    /// The socket that clients connect to; it listens already.
    pub listener: OwnedFd,
}

/// Runs the shim: the whole of both binaries.
pub fn main(flavor: Flavor) -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_else(|| flavor.runtime_name().into());
    let outcome = match cli::parse(args) {
        Ok(invocation) => run(flavor, &program, &invocation),
        Err(CliError::Refused(text)) => Err(text.to_owned()),
        Err(error) => return explain(&program, &error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            // No newline: containerd makes the text a part of its own message.
            say(&format!("{}: {text}", flavor.runtime_name()));
            ExitCode::FAILURE
        }
    }
}

/// A command line that was not understood, in the way of Go's flag package.
fn explain(program: &OsString, error: &CliError) -> ExitCode {
    let usage = cli::usage(&program.to_string_lossy());
    if *error == CliError::Help {
        say(&usage);
        return ExitCode::SUCCESS;
    }
    say(&format!("{error}\n{usage}"));
    ExitCode::from(2)
}

/// Writes to stderr; there is nobody to tell of a failure.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes the reply, all of it in one piece, which is the protocol of every action but serve.
fn reply(bytes: &[u8]) -> Result<(), String> {
    let mut stdout = io::stdout();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("write to stdout: {error}"))
}

fn run(flavor: Flavor, program: &OsString, invocation: &Invocation) -> Result<(), String> {
    let flags = &invocation.flags;
    match invocation.action {
        Action::Version => reply(version(Path::new(program)).as_bytes()),
        Action::Info => reply(&info::info(flavor, &stdin()?)?),
        Action::Start => reply(&start(flavor, flags)?),
        Action::Delete => {
            check_ids(flags)?;
            shim_common::log::to_stderr(
                flavor.runtime_name(),
                &flags.namespace,
                &flags.id,
                flags.debug,
            );
            reply(&delete::delete(flavor, flags)?)
        }
        // Its stderr is the log, where the next line follows.
        Action::Serve => serve(flavor, flags).map_err(|text| text + "\n"),
    }
}

fn version(program: &Path) -> String {
    let name = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy();
    format!("{name}:\n  Version:  {VERSION}\n  Revision: {REVISION}\n\n")
}

fn stdin() -> Result<Vec<u8>, String> {
    read_stdin(io::stdin().lock()).map_err(|error| error.to_string())
}

/// The ids become parts of paths.
fn check_ids(flags: &Flags) -> Result<(), String> {
    check_namespace(&flags.namespace)
        .and_then(|()| check_container_id(&flags.id))
        .map_err(|refusal| refusal.message)
}

/// The `start` action: its reply.
fn start(flavor: Flavor, flags: &Flags) -> Result<Vec<u8>, String> {
    check_ids(flags)?;
    let request = StartRequest::decode(&stdin()?, &flags.namespace, &flags.id)
        .map_err(|error| error.to_string())?;
    let bundle = std::env::current_dir().map_err(|error| format!("working directory: {error}"))?;

    let config = bundle.join(CONFIG);
    let text = spec::read(&config).map_err(|error| error.to_string())?;
    let spec = Spec::parse(&config, &text).map_err(|error| error.to_string())?;
    let group = if flavor.groups() { spec.group() } else { None };

    let shim_cgroup = shim_cgroup(&request)?;
    let (grpc, ttrpc) = request.containerd_addresses();
    let grpc_address = if flags.address.is_empty() {
        grpc
    } else {
        &flags.address
    };
    let mut changes = vec![(env::GOMAXPROCS, flavor.gomaxprocs())];
    if std::env::var_os(allocator::VARIABLE).is_none() {
        changes.push((allocator::VARIABLE, allocator::SETTING));
    }
    if std::env::var_os(env::TTRPC_ADDRESS).is_none() && !ttrpc.is_empty() {
        changes.push((env::TTRPC_ADDRESS, ttrpc));
    }
    let socket_dir = socket_dir_or_default(&request);
    let plan = StartPlan {
        namespace: &flags.namespace,
        id: &flags.id,
        grpc_address,
        group: group.unwrap_or(&flags.id),
        debug: flags.debug || request.debug(),
        socket_dir: &socket_dir,
        link_socket_dir: socket_dir != Path::new(SOCKET_DIR),
        existing: flavor.existing_socket(),
        bundle: &bundle,
        write_shim_pid: flavor.writes_shim_pid(),
        core_scheduling: std::env::var_os(env::SCHED_CORE).is_some_and(|value| !value.is_empty()),
        shim_cgroup: shim_cgroup.as_deref(),
        env: served_environment(std::env::vars_os(), &changes),
    };
    let address = start::start(plan).map_err(|error| error.to_string())?;
    request.reply(&address).map_err(|error| error.to_string())
}

/// The one option that `start` itself obeys. Options of a type that is not ours are for Create to
/// refuse: it can say so with a class.
fn shim_cgroup(request: &StartRequest) -> Result<Option<String>, String> {
    use runc::options::{OptionsError, load};
    let Some(options) = request.options() else {
        return Ok(None);
    };
    match load(&options.type_url, &options.value) {
        Ok(options) => Ok(Some(options.shim_cgroup).filter(|cgroup| !cgroup.is_empty())),
        Err(OptionsError::ForeignType(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The served process, until it ends.
fn serve(flavor: Flavor, flags: &Flags) -> Result<(), String> {
    // First of all, before anything else opens descriptors.
    let inherited = sys::process::take_inherited_fd(SOCKET_FD);
    // There is no debug service; the descriptor must only not leak into containers.
    drop(sys::process::take_inherited_fd(DEBUG_SOCKET_FD));
    sys::process::set_name(PROCESS_NAME).map_err(|error| format!("set the name: {error}"))?;
    sys::process::arena_limit();
    // With the one it has, too, it serves.
    let _ = sys::process::raise_descriptor_limit();
    let listener = if flags.socket.as_os_str().is_empty() {
        inherited.ok_or_else(|| {
            format!(
                "no socket to serve on: descriptor {SOCKET_FD} is not open and -socket not given"
            )
        })?
    } else {
        sys::socket::listen_unix(&flags.socket, 0o600).map_err(|error| error.to_string())?
    };
    shim_common::log::to_fifo(
        flavor.runtime_name(),
        &flags.namespace,
        &flags.id,
        flags.debug,
    );
    crate::supervisor::serve(ServeArgs {
        flavor,
        namespace: flags.namespace.clone(),
        id: flags.id.clone(),
        address: flags.address.clone(),
        debug: flags.debug,
        listener,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use task_api::task::Any;

    #[test]
    fn the_version_is_told_under_the_programs_own_name() {
        let text = version(Path::new("/usr/bin/containerd-shim-runc-v2"));
        assert!(
            text.starts_with("containerd-shim-runc-v2:\n  Version:  0."),
            "{text}"
        );
        assert!(text.contains("\n  Revision: "), "{text}");
    }

    #[test]
    fn only_runc_options_put_the_shim_into_a_cgroup() {
        let request = |type_url: &str, value: &[u8]| {
            let value = value.to_vec();
            StartRequest::Legacy(Some(Any {
                type_url: type_url.into(),
                value,
                ..Any::default()
            }))
        };
        let options = b"\x1a\x02/s";
        let got = shim_cgroup(&request("containerd.runc.v1.Options", options));
        assert_eq!(got.unwrap().as_deref(), Some("/s"));
        assert_eq!(
            shim_cgroup(&request("other.Options", options)).unwrap(),
            None
        );
        assert_eq!(shim_cgroup(&StartRequest::Legacy(None)).unwrap(), None);
        assert!(shim_cgroup(&request("containerd.runc.v1.Options", b"\xff")).is_err());
    }
}
