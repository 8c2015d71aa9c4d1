//! Starting a shim as containerd does: flags, environment, standard input and the reply.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, Extension};
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, MessageField};
use serde::Deserialize;

use crate::client::{TASK_V2, TASK_V3, TaskClient};
use crate::host;
use crate::wait::{SHORT, eventually};

/// What the daemon writes to the standard input of `start`, by its generation.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// Nothing: a daemon up to 2.2 without runtime options.
    Empty,
    /// The runtime options: a daemon up to 2.2.
    Options(Any),
    /// `BootstrapParams`: a daemon from 2.3 on; the options are an extension.
    Bootstrap {
        /// The runtime options.
        options: Option<Any>,
        /// Where the shim shall make its socket instead of /run/containerd/s.
        socket_dir: Option<PathBuf>,
    },
    /// Any bytes.
    Raw(Vec<u8>),
}

/// One call of `start`.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The shim's program.
    pub binary: PathBuf,
    /// `-namespace`
    pub namespace: String,
    /// `-id`
    pub id: String,
    /// `-address`
    pub grpc_address: PathBuf,
    /// `TTRPC_ADDRESS`
    pub ttrpc_address: PathBuf,
    /// The working directory, which is how a shim knows its bundle.
    pub bundle: PathBuf,
    /// `-debug`
    pub debug: bool,
    /// Standard input.
    pub protocol: Protocol,
    /// Further environment.
    pub env: Vec<(String, String)>,
}

/// What `start` left: exit code and output, standard error and output mixed as containerd has it.
#[derive(Clone, Debug)]
pub struct StartOutcome {
    /// Exit code, or none when it died of a signal.
    pub code: Option<i32>,
    /// Both streams combined.
    pub output: Vec<u8>,
    /// The log FIFO of the bundle, held open as containerd does: a shim may wait for its reader.
    pub log: Option<Arc<File>>,
}

/// The forms of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Only the address.
    Bare(String),
    /// The JSON form of 1.7 to 2.2.
    Json(JsonReply),
    /// `BootstrapResult`.
    Protobuf {
        /// Version of the task API.
        version: i32,
        /// Socket address.
        address: String,
        /// `ttrpc`
        protocol: String,
    },
}

/// The fields of the JSON form.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct JsonReply {
    /// Version of the task API.
    pub version: i32,
    /// Socket address.
    pub address: String,
    /// `ttrpc`
    pub protocol: String,
}

impl Reply {
    /// Reads a reply as a daemon of 2.3 does: protobuf, then JSON, then bare.
    pub fn parse(output: &[u8]) -> Self {
        if let Ok(result) = BootstrapResult::parse_from_bytes(output)
            && result.version > 0
            && !result.address.is_empty()
        {
            return Self::Protobuf {
                version: result.version,
                address: result.address,
                protocol: result.protocol,
            };
        }
        if let Ok(json) = serde_json::from_slice(output) {
            return Self::Json(json);
        }
        Self::Bare(String::from_utf8_lossy(output).trim().to_owned())
    }

    /// The task service that the reply announces; a bare address is of the days before it could.
    pub fn task_service(&self) -> &'static str {
        match self {
            Self::Json(JsonReply { version, .. }) | Self::Protobuf { version, .. }
                if *version >= 3 =>
            {
                TASK_V3
            }
            _ => TASK_V2,
        }
    }

    /// The address, whatever the form.
    pub fn address(&self) -> &str {
        match self {
            Self::Bare(address) | Self::Protobuf { address, .. } => address,
            Self::Json(json) => &json.address,
        }
    }
}

/// The path inside a `unix://` address.
///
/// # Panics
/// When the address has another form.
pub fn socket_path(address: &str) -> PathBuf {
    PathBuf::from(
        address
            .strip_prefix("unix://")
            .unwrap_or_else(|| panic!("not a unix:// address: {address:?}")),
    )
}

impl StartRequest {
    /// Flags, environment and folder as containerd gives them to every mode; no action yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(&self.bundle)
            .args(["-namespace", &self.namespace, "-address"])
            .arg(&self.grpc_address)
            .args(["-publish-binary", "/usr/bin/containerd", "-id", &self.id])
            .env("TTRPC_ADDRESS", &self.ttrpc_address)
            .env("GRPC_ADDRESS", &self.grpc_address)
            .env("NAMESPACE", &self.namespace)
            .env("MAX_SHIM_VERSION", "2")
            .env("GOMAXPROCS", "2")
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        if self.debug {
            command.arg("-debug");
        }
        command
    }

    /// The bytes for standard input.
    pub fn stdin(&self) -> Vec<u8> {
        match &self.protocol {
            Protocol::Empty => Vec::new(),
            Protocol::Options(any) => any.write_to_bytes().expect("options encode"),
            Protocol::Raw(bytes) => bytes.clone(),
            Protocol::Bootstrap {
                options,
                socket_dir,
            } => {
                let mut params = BootstrapParams::new();
                params.instance_id.clone_from(&self.id);
                params.namespace.clone_from(&self.namespace);
                params.containerd_version = "2.3.0".to_owned();
                params.containerd_grpc_address = self.grpc_address.display().to_string();
                params.containerd_ttrpc_address = self.ttrpc_address.display().to_string();
                params.containerd_binary = "/usr/bin/containerd".to_owned();
                params.socket_dir = socket_dir.as_ref().map(|d| d.display().to_string());
                if let Some(options) = options {
                    let mut extension = Extension::new();
                    extension.value = MessageField::some(options.clone());
                    params.extensions.push(extension);
                }
                params.write_to_bytes().expect("parameters encode")
            }
        }
    }

    /// Runs `start` to the end of its output, which is when containerd goes on.
    pub fn run(&self) -> StartOutcome {
        let log = open_log(&self.bundle.join("log")).map(Arc::new);
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let mut command = self.command();
        command
            .arg("start")
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().expect("a second writing end"))
            .stderr(writer);
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("run {}: {e}", self.binary.display()));
        // The command holds writing ends of the pipe too: end of file needs them closed.
        drop(command);
        let mut stdin = child.stdin.take().expect("standard input is piped");
        // A shim that refuses its flags may have ended without reading.
        let _ = stdin.write_all(&self.stdin());
        drop(stdin);
        let mut output = Vec::new();
        reader.read_to_end(&mut output).expect("read the reply");
        let status = child.wait().expect("collect start");
        StartOutcome {
            code: status.code(),
            output,
            log,
        }
    }
}

/// A running shim: its reply, a task client on it, its pid and its log.
#[derive(Debug)]
pub struct Shim {
    /// The reply to `start`.
    pub reply: Reply,
    /// The socket.
    pub socket: PathBuf,
    /// The task client, of the version that the reply announces.
    pub task: TaskClient,
    /// The served process.
    pub pid: i32,
    log: Arc<Mutex<Vec<u8>>>,
}

impl Shim {
    /// Runs `start`, opens the log FIFO as containerd does, and connects.
    ///
    /// # Errors
    /// The outcome of a `start` that failed.
    pub fn start(request: &StartRequest) -> Result<Self, StartOutcome> {
        let log = read_log(&request.bundle.join("log"));
        let outcome = request.run();
        if outcome.code != Some(0) {
            return Err(outcome);
        }
        let reply = Reply::parse(&outcome.output);
        let socket = socket_path(reply.address());
        let task = TaskClient::connect(&socket, reply.task_service())
            .unwrap_or_else(|e| panic!("connect to {}: {e}", socket.display()));
        let connected = task.connect_task(&request.id).expect("Connect never fails");
        Ok(Self {
            reply,
            socket,
            task,
            pid: i32::try_from(connected.shim_pid).expect("a pid"),
            log,
        })
    }

    /// What the shim wrote to its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// Whether the process runs.
    pub fn alive(&self) -> bool {
        host::alive(self.pid)
    }

    /// Waits for the process to end.
    #[track_caller]
    pub fn wait_gone(&self) {
        eventually(SHORT, "the shim ends", || !self.alive());
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&self) {
        host::kill_hard(self.pid);
        self.wait_gone();
    }
}

/// Opens the log FIFO for reading and writing, as containerd does. A bundle without one is a test's
/// wish.
fn open_log(path: &Path) -> Option<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_CLOEXEC.bits())
        .open(path)
        .ok()
}

/// Collects what the shim writes to its log in a thread.
fn read_log(path: &Path) -> Arc<Mutex<Vec<u8>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let Some(mut file) = open_log(path) else {
        return log;
    };
    let shared = Arc::clone(&log);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // It ends with the test's process, since it holds a writing end itself.
        while let Ok(n) = file.read(&mut buffer) {
            shared.lock().unwrap().extend_from_slice(&buffer[..n]);
        }
    });
    log
}
