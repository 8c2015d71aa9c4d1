//! Input and output of a container's process: FIFOs in a folder of their own, and a thread for
//! each that copies. Threads, because our own streams may block for as long as a reader likes, and
//! signals must be served meanwhile.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::sync::mpsc;

use crate::error::{Context, Error, Result};
use crate::random;

/// Bytes that are copied at once: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// A process has ended, and its output has been silent this long: somebody it left behind still
/// holds the pipe, and is not waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// Which streams a process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streams {
    /// Our stdin goes to it.
    pub(crate) input: bool,
    /// It has a terminal: its errors come with its output.
    pub(crate) terminal: bool,
}

/// The FIFOs, before the shim has opened them. The folder goes with this.
#[derive(Debug)]
pub(crate) struct Fifos {
    folder: PathBuf,
    streams: Streams,
    outputs: Vec<(File, Sink)>,
}

#[derive(Debug, Clone, Copy)]
enum Sink {
    Stdout,
    Stderr,
}

impl Fifos {
    /// Makes the folder and the FIFOs, and opens those we read: the shim then finds a reader.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn new(streams: Streams) -> Result<Self> {
        // Where /run is ours to write, for a daemon may have a /tmp of its own.
        let name = format!("wherry-io-{}", random::id()?);
        let mut folder = private_folder(Path::new("/run").join(&name));
        if folder.is_err() {
            folder = private_folder(std::env::temp_dir().join(&name));
        }
        let mut fifos = Self {
            folder: folder.about("a folder for FIFOs")?,
            streams,
            outputs: Vec::new(),
        };
        if streams.input {
            fifos.make("stdin")?;
        }
        let stdout = fifos.make("stdout")?;
        fifos.outputs.push((reader(&stdout)?, Sink::Stdout));
        if !streams.terminal {
            let stderr = fifos.make("stderr")?;
            fifos.outputs.push((reader(&stderr)?, Sink::Stderr));
        }
        Ok(fifos)
    }

    fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).about(path.display().to_string())?;
        Ok(path)
    }

    fn path(&self, name: &str, is_there: bool) -> String {
        if is_there {
            self.folder.join(name).to_string_lossy().into_owned()
        } else {
            String::new()
        }
    }

    /// Path of the FIFO it reads; empty for none.
    pub(crate) fn stdin(&self) -> String {
        self.path("stdin", self.streams.input)
    }

    /// Path of the FIFO it writes to.
    pub(crate) fn stdout(&self) -> String {
        self.path("stdout", true)
    }

    /// Path of the FIFO of its errors; empty for none.
    pub(crate) fn stderr(&self) -> String {
        self.path("stderr", !self.streams.terminal)
    }

    /// Starts to copy. The shim must have opened the FIFOs: it has when the container was created,
    /// or the exec started.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn attach(mut self) -> Result<Relays> {
        let (sender, notes) = mpsc::unbounded_channel();
        let flow = Arc::new(Flow::default());
        let open = self.outputs.len();
        for (fifo, sink) in self.outputs.drain(..) {
            fcntl(&fifo, FcntlArg::F_SETFL(OFlag::empty())).about("a FIFO")?;
            let to = match sink {
                Sink::Stdout => io::stdout().as_fd().try_clone_to_owned(),
                Sink::Stderr => io::stderr().as_fd().try_clone_to_owned(),
            };
            let to = File::from(to.about("stdout")?);
            let (flow, sender) = (flow.clone(), sender.clone());
            spawn("output", move || copy_output(fifo, to, &flow, &sender))?;
        }
        if self.streams.input {
            let path = self.folder.join("stdin");
            let writer = OpenOptions::new()
                .write(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(&path);
            match writer {
                Ok(writer) => {
                    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).about("a FIFO")?;
                    let stdin = io::stdin().as_fd().try_clone_to_owned().about("stdin")?;
                    spawn("input", move || {
                        copy_input(&File::from(stdin), writer);
                        // Nobody listens any more only when we are about to end.
                        let _ = sender.send(Note::InputDone);
                    })?;
                }
                // Nobody reads: the process has ended already.
                Err(error) if error.raw_os_error() == Some(nix::Error::ENXIO as i32) => {}
                Err(error) => return Err(Error::io(path.display().to_string(), error)),
            }
        }
        Ok(Relays {
            _fifos: self,
            notes,
            flow,
            open,
        })
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        // What cannot be removed is an empty folder on a file system that forgets.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes a folder that only we and root may enter, and that was not there.
fn private_folder(path: PathBuf) -> io::Result<PathBuf> {
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

fn reader(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .about(path.display().to_string())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map(drop).about("a thread")
}

/// What the copying threads have to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// One output has come to its end.
    OutputDone,
    /// Nobody reads what we write.
    ReaderGone,
    /// Our stdin has come to its end.
    InputDone,
}

/// What the outputs have done so far.
#[derive(Debug, Default)]
struct Flow {
    chunks: AtomicU64,
    /// An output waits for its reader, who may take any time.
    writing: AtomicBool,
}

/// The copying threads of a process.
#[derive(Debug)]
pub(crate) struct Relays {
    _fifos: Fifos,
    notes: mpsc::UnboundedReceiver<Note>,
    flow: Arc<Flow>,
    /// Outputs that have not come to their end.
    open: usize,
}

impl Relays {
    /// The next thing they say; never, when all have ended.
    pub(crate) async fn next(&mut self) -> Note {
        match self.notes.recv().await {
            Some(note) => {
                if note == Note::OutputDone {
                    self.open = self.open.saturating_sub(1);
                }
                note
            }
            None => std::future::pending().await,
        }
    }

    /// Waits, after the process has ended, until its output is out.
    pub(crate) async fn drain(&mut self) {
        while self.open > 0 {
            let before = self.flow.chunks.load(Ordering::Relaxed);
            let said = tokio::time::timeout(SILENCE, self.next()).await;
            let is_silent = !self.flow.writing.load(Ordering::Relaxed)
                && self.flow.chunks.load(Ordering::Relaxed) == before;
            if said.is_err() && is_silent || said == Ok(Note::ReaderGone) {
                return;
            }
        }
    }
}

fn copy_output(from: File, to: File, flow: &Flow, notes: &mpsc::UnboundedSender<Note>) {
    let mut chunk = vec![0; CHUNK];
    let mut is_read = true;
    while let Some(bytes) = read_some(&from, &mut chunk) {
        // Past the end of the reader, what comes is still taken, for the process must not hang.
        if is_read {
            flow.writing.store(true, Ordering::Relaxed);
            is_read = write_all(&to, bytes).is_ok();
            flow.writing.store(false, Ordering::Relaxed);
            if !is_read {
                let _ = notes.send(Note::ReaderGone);
            }
        }
        flow.chunks.fetch_add(1, Ordering::Relaxed);
    }
    let _ = notes.send(Note::OutputDone);
}

fn copy_input(from: &File, to: File) {
    let mut chunk = vec![0; CHUNK];
    while let Some(bytes) = read_some(from, &mut chunk) {
        if write_all(&to, bytes).is_err() {
            return;
        }
    }
}

/// Waits for bytes; nothing at the end, and after an error, which here means the same.
fn read_some<'a>(mut from: &File, chunk: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        match from.read(chunk) {
            Ok(0) => return None,
            Ok(length) => return chunk.get(..length),
            Err(error) if again(&error, from.as_fd(), PollFlags::POLLIN) => {}
            Err(_) => return None,
        }
    }
}

fn write_all(mut to: &File, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(Error::said("nothing can be written")),
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if again(&error, to.as_fd(), PollFlags::POLLOUT) => {}
            Err(error) => return Err(Error::io("output", error)),
        }
    }
    Ok(())
}

/// Whether to try again, after waiting where a stream was given to us in non-blocking mode.
fn again(error: &io::Error, stream: BorrowedFd<'_>, wanted: PollFlags) -> bool {
    match error.kind() {
        ErrorKind::Interrupted => true,
        ErrorKind::WouldBlock => {
            let waited = poll(&mut [PollFd::new(stream, wanted)], PollTimeout::NONE);
            matches!(waited, Ok(_) | Err(nix::Error::EINTR))
        }
        _ => false,
    }
}
