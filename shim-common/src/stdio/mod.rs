//! Standard streams: what the container gets for descriptors 0 to 2, and the relay between those
//! and what the client asked for (DESIGN rule 8, shim-contract section 2, table "I/O").
//!
//! [`open`] makes both ends, [`Relay`] copies. Everything runs on the shim's one thread and in a
//! `LocalSet`; nothing here blocks it, and while no byte flows nothing wakes it. One file per way:
//! `fifo`, `files`, `binary`, `terminal`, `stdin`; `uri` tells them apart.

mod binary;
mod console;
mod fifo;
mod files;
mod opens;
mod relay;
mod splice;
mod stdin;
mod stream;
mod terminal;
#[cfg(test)]
mod tests;
mod uri;
mod watched;

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use sys::spawn::Stdio;
use tokio::io::Interest;

pub use console::{ConsoleSocket, Master, remove_consoles, runtime_dir};
pub use relay::Relay;

use crate::helper;
use relay::{Console, Task};
use stream::Stream;
use uri::{Binary, Target};
use watched::watch_pipe;

/// What a Create or Exec asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The client's stdin FIFO, or empty.
    pub stdin: String,
    /// Where standard output goes: empty, a path, or a URI. Its scheme decides for stderr too
    /// where it is a logger or a `file://`.
    pub stdout: String,
    /// Where standard error goes; not looked at with a terminal.
    pub stderr: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
    /// The owner of the container's pipes (`io_uid` of runc's options), so that a container of
    /// another user may open /dev/stdout.
    pub uid: u32,
    /// Their group (`io_gid`).
    pub gid: u32,
    /// The container's id, for a logger and for the name of a console socket.
    pub container_id: String,
    /// Its namespace, for the same.
    pub namespace: String,
    /// Where console sockets are made: `XDG_RUNTIME_DIR`, or /run.
    pub runtime_dir: PathBuf,
}

/// The descriptors for the runtime, which hands them to the process. They must be closed in the
/// shim once the runtime has them (`sys::spawn` does): a copy kept here hides the end of file.
#[derive(Debug, Default)]
pub struct ChildEnds {
    /// Descriptor 0.
    pub stdin: Stdio,
    /// Descriptor 1.
    pub stdout: Stdio,
    /// Descriptor 2.
    pub stderr: Stdio,
}

/// Streams that are open and do not flow yet.
pub struct Opened {
    /// What the runtime gets.
    pub child: ChildEnds,
    /// With a terminal: the socket whose path the runtime gets as `--console-socket`. Spawn
    /// [`ConsoleSocket::receive`] and give its result to [`Relay::attach`].
    pub console: Option<ConsoleSocket>,
    /// The client's side.
    pub relay: Relay,
}

/// Why streams could not be opened.
#[derive(Debug)]
pub enum StdioError {
    /// A scheme that no shim knows.
    UnknownScheme(String),
    /// A URI that says too little.
    Uri {
        /// The URI.
        uri: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A terminal with something that cannot go with one.
    Terminal(&'static str),
    /// A FIFO or file could not be opened.
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pipe could not be made.
    Pipe(io::Error),
    /// The socket for the terminal could not be made.
    ConsoleSocket(io::Error),
    /// The logger did not start.
    Logger {
        /// Its program.
        program: PathBuf,
        /// What happened.
        what: String,
    },
}

impl fmt::Display for StdioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownScheme(scheme) => write!(f, "unknown STDIO scheme {scheme}"),
            Self::Uri { uri, what } => write!(f, "stdio {uri}: {what}"),
            Self::Terminal(what) => write!(f, "terminal: {what}"),
            Self::Open { path, source } => write!(f, "open stdio {}: {source}", path.display()),
            Self::Pipe(source) => write!(f, "make stdio pipe: {source}"),
            Self::ConsoleSocket(source) => write!(f, "make console socket: {source}"),
            Self::Logger { program, what } => write!(f, "logger {}: {what}", program.display()),
        }
    }
}

impl Error for StdioError {}

/// Opens all streams of a process. Never waits for a peer of a FIFO; waits (without blocking the
/// thread) for plain files to open and for a logger to be ready, at most 10 s.
pub async fn open(request: &Request) -> Result<Opened, StdioError> {
    let mut opened = Opened {
        child: ChildEnds::default(),
        console: None,
        relay: Relay::default(),
    };
    let stdout = uri::parse(&request.stdout)?;
    if request.terminal {
        open_terminal(request, stdout, &mut opened).await?;
        return Ok(opened);
    }
    open_stdin(request, &mut opened)?;
    match stdout {
        Target::Binary(binary) => {
            let (out, out_writer) = container_output(request)?;
            let (err, err_writer) = container_output(request)?;
            let logger = start_logger(request, binary, out, err, &mut opened.relay).await?;
            opened.relay.logger = Some(logger);
            opened.child.stdout = Stdio::Fd(out_writer);
            opened.child.stderr = Stdio::Fd(err_writer);
        }
        Target::File(path) => {
            let file = open_file(&path, true).await?;
            for (name, end) in opened.child.outputs() {
                *end = copy_to_file(request, name, &path, &file, &mut opened.relay)?;
            }
        }
        stdout @ (Target::Null | Target::Path(_)) => {
            let stderr = uri::parse(&request.stderr)?;
            let mut shared: Option<(PathBuf, Arc<File>)> = None;
            for ((name, end), target) in opened.child.outputs().zip([stdout, stderr]) {
                *end = match target {
                    Target::Null => Stdio::Null,
                    Target::Path(path) => {
                        open_path(request, name, path, &mut shared, &mut opened.relay).await?
                    }
                    Target::File(path) => {
                        let file = open_file(&path, true).await?;
                        copy_to_file(request, name, &path, &file, &mut opened.relay)?
                    }
                    Target::Binary(binary) => {
                        return Err(StdioError::Logger {
                            program: binary.program,
                            what: "a logger takes both streams: name it for stdout".to_owned(),
                        });
                    }
                };
            }
        }
    }
    Ok(opened)
}

impl ChildEnds {
    fn outputs(&mut self) -> impl Iterator<Item = (&'static str, &mut Stdio)> {
        [("stdout", &mut self.stdout), ("stderr", &mut self.stderr)].into_iter()
    }
}

fn open_stdin(request: &Request, opened: &mut Opened) -> Result<(), StdioError> {
    if request.stdin.is_empty() {
        return Ok(());
    }
    let path = Path::new(&request.stdin);
    let input = stdin::open_input(path).map_err(|source| open_failed(path, source))?;
    let (reader, writer) = pipe()?;
    give(&reader, request)?;
    let sink = watch_pipe(writer, Interest::WRITABLE).map_err(StdioError::Pipe)?;
    opened.child.stdin = Stdio::Fd(reader);
    opened.relay.hold = Some(Rc::clone(&input.hold));
    let job = Box::pin(stdin::relay(input, sink));
    opened.relay.jobs.push((Task::Input, job));
    Ok(())
}

/// A path without a scheme: usually a FIFO, else a file or device that is there.
async fn open_path(
    request: &Request,
    name: &'static str,
    path: PathBuf,
    shared: &mut Option<(PathBuf, Arc<File>)>,
    relay: &mut Relay,
) -> Result<Stdio, StdioError> {
    match fifo::open_output(&path) {
        Ok(ends) => {
            let (source, writer) = container_output(request)?;
            let source = watch_pipe(source, Interest::READABLE).map_err(StdioError::Pipe)?;
            let source = Rc::new(source);
            let stream = Stream::new(name, path.display().to_string(), &relay.drain);
            stream.own_reader.replace(Some(ends.reader));
            stream.source.replace(Rc::downgrade(&source));
            let job = Box::pin(fifo::relay(source, ends.writer, Rc::clone(&stream)));
            relay.jobs.push((Task::Output(stream), job));
            Ok(Stdio::Fd(writer))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let file = match shared {
                Some((known, file)) if *known == path => Arc::clone(file),
                _ => open_file(&path, false).await?,
            };
            let end = copy_to_file(request, name, &path, &file, relay)?;
            *shared = Some((path, file));
            Ok(end)
        }
        Err(source) => Err(StdioError::Open { path, source }),
    }
}

async fn open_file(path: &Path, create: bool) -> Result<Arc<File>, StdioError> {
    let owned = path.to_path_buf();
    match helper::run(move || files::open_append(&owned, create)).await {
        Ok(Ok(file)) => Ok(Arc::new(file)),
        Ok(Err(source)) => Err(open_failed(path, source)),
        Err(error) => Err(open_failed(path, io::Error::other(error))),
    }
}

fn copy_to_file(
    request: &Request,
    name: &'static str,
    path: &Path,
    file: &Arc<File>,
    relay: &mut Relay,
) -> Result<Stdio, StdioError> {
    let (source, writer) = container_output(request)?;
    sys::pipe::set_nonblocking(&source, true).map_err(StdioError::Pipe)?;
    let stream = Stream::new(name, path.display().to_string(), &relay.drain);
    let copy = files::FileCopy::new(source.into(), Arc::clone(file), path.to_path_buf());
    let job = Box::pin(files::relay(copy, Rc::clone(&stream)));
    relay.jobs.push((Task::Output(stream), job));
    Ok(Stdio::Fd(writer))
}

/// Starts a logger on two pipes; its end counts as the end of an output stream, so that a Delete
/// gives it time to write the tail.
async fn start_logger(
    request: &Request,
    binary: Binary,
    stdout: OwnedFd,
    stderr: OwnedFd,
    relay: &mut Relay,
) -> Result<Rc<binary::Logger>, StdioError> {
    let (id, namespace) = (&request.container_id, &request.namespace);
    let target = binary.program.display().to_string();
    let logger = Rc::new(binary::start(binary, id, namespace, stdout, stderr).await?);
    let stream = Stream::new("logger", target, &relay.drain);
    let exited = Rc::clone(&relay.exited);
    let job = Rc::clone(&logger).watch(Rc::clone(&stream), move || exited.get());
    relay.jobs.push((Task::Output(stream), Box::pin(job)));
    Ok(logger)
}

async fn open_terminal(
    request: &Request,
    stdout: Target,
    opened: &mut Opened,
) -> Result<(), StdioError> {
    let relay = &mut opened.relay;
    let input = match request.stdin.as_str() {
        "" => None,
        path => {
            let path = Path::new(path);
            Some(stdin::open_input(path).map_err(|source| open_failed(path, source))?)
        }
    };
    relay.hold = input.as_ref().map(|input| Rc::clone(&input.hold));
    let (target, sink, own_reader) = match stdout {
        Target::Null => return Err(StdioError::Terminal("it needs a stdout")),
        Target::File(_) => return Err(StdioError::Terminal("its stdout cannot be file://")),
        Target::Path(path) => {
            let ends = fifo::open_output(&path).map_err(|source| open_failed(&path, source))?;
            (path, ends.writer, Some(ends.reader))
        }
        Target::Binary(binary) => {
            let program = binary.program.clone();
            let (out, writer) = pipe()?;
            // A terminal has one output; the logger's other descriptor is at its end at once.
            let (err, _) = pipe()?;
            let logger = start_logger(request, binary, out, err, relay).await?;
            relay.logger = Some(logger);
            let sink = watch_pipe(writer, Interest::WRITABLE).map_err(StdioError::Pipe)?;
            (program, sink, None)
        }
    };
    let stream = Stream::new("terminal", target.display().to_string(), &relay.drain);
    stream.own_reader.replace(own_reader);
    relay.console = Console::Awaited {
        input,
        sink,
        stream,
    };
    let Request {
        runtime_dir,
        namespace,
        container_id,
        ..
    } = request;
    let socket = ConsoleSocket::new(runtime_dir, namespace, container_id);
    opened.console = Some(socket.map_err(StdioError::ConsoleSocket)?);
    Ok(())
}

/// A pipe whose write end is the container's: (our end, its end).
fn container_output(request: &Request) -> Result<(OwnedFd, OwnedFd), StdioError> {
    let (reader, writer) = pipe()?;
    give(&writer, request)?;
    Ok((reader, writer))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), StdioError> {
    sys::pipe::pipe().map_err(StdioError::Pipe)
}

/// Gives a pipe to the container's user; root's are right as they are, and without root nobody
/// could give them away.
fn give(end: &OwnedFd, request: &Request) -> Result<(), StdioError> {
    if (request.uid, request.gid) == (0, 0) {
        return Ok(());
    }
    sys::pipe::chown_fd(end, request.uid, request.gid).map_err(StdioError::Pipe)
}

fn open_failed(path: &Path, source: io::Error) -> StdioError {
    StdioError::Open {
        path: path.to_path_buf(),
        source,
    }
}
