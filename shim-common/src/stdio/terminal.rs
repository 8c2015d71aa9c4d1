//! A terminal's master on one side, the client's FIFOs on the other.
//!
//! A terminal cannot be spliced: bytes go through a small buffer on the stack, so a terminal
//! that is quiet holds no memory.
//!
//! The master reports a hang-up (EIO) when nobody has the terminal open. That is no end: the
//! container may open it again. The end is a hang-up, or silence, after the process has exited.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use tokio::io::Interest;
use tokio::sync::Notify;

use super::fifo::deliver;
use super::splice::TURN;
use super::stdin::Input;
use super::stream::{Ending, Stream};
use super::watched::{Edges, Watched};

/// What one read takes at most: a pipe takes this much whole or not at all (PIPE_BUF).
const CHUNK: usize = 4096;

/// The master of a container's terminal.
pub(super) struct Terminal {
    pub(super) master: File,
    exited: Cell<bool>,
    exit: Notify,
}

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        sys::pipe::set_nonblocking(&master, true)?;
        Ok(Self {
            master: master.into(),
            exited: Cell::new(false),
            exit: Notify::new(),
        })
    }

    /// The process is gone: from now on a hang-up or silence is the end.
    pub(super) fn process_exited(&self) {
        self.exited.set(true);
        self.exit.notify_waiters();
    }

    /// Waits for something to change on the master or for the exit of the process.
    async fn changed(&self, edges: &Edges) -> io::Result<()> {
        if self.exited.get() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.exit.notified() => Ok(()),
            changed = edges.changed() => changed,
        }
    }
}

enum Turn {
    Moved(usize),
    Blocked(Vec<u8>),
    Quiet,
    NoReader,
}

/// Copies what the container shows, to its end and until its last byte has a reader.
pub(super) async fn relay_output(terminal: Rc<Terminal>, sink: Watched, stream: Rc<Stream>) {
    let ending = Ending(stream);
    let stream = &ending.0;
    match copy_output(&terminal, &sink, stream).await {
        Ok(true) => {
            drop(terminal);
            deliver(&sink, stream).await;
            drop(sink);
        }
        Ok(false) => log::debug!("{stream}: the reader is gone"),
        Err(error) => log::error!("{stream}: relay ends: {error}"),
    }
}

/// `Ok(false)` when nobody reads any more.
async fn copy_output(terminal: &Terminal, sink: &Watched, stream: &Stream) -> io::Result<bool> {
    let edges = Edges::new(&terminal.master, true)?;
    let mut budget = TURN;
    loop {
        // Asked before the read: what was written before the exit is seen by a read after it.
        let exited = terminal.exited.get();
        let bytes = match copy_chunk(terminal, sink.get_ref())? {
            Turn::Moved(bytes) => bytes,
            Turn::Blocked(rest) => match write_all(sink, &rest).await {
                Ok(()) => rest.len(),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(error) => return Err(error),
            },
            Turn::NoReader => return Ok(false),
            Turn::Quiet if exited => return Ok(true),
            Turn::Quiet => {
                terminal.changed(&edges).await?;
                continue;
            }
        };
        stream.count(bytes);
        budget = budget.saturating_sub(bytes);
        if budget == 0 {
            budget = TURN;
            tokio::task::yield_now().await;
        }
    }
}

fn copy_chunk(terminal: &Terminal, mut sink: &File) -> io::Result<Turn> {
    let mut buffer = [0; CHUNK];
    let length = match (&terminal.master).read(&mut buffer) {
        Ok(0) => return Ok(Turn::Quiet),
        Ok(length) => length,
        Err(error) if is_quiet(&error) => return Ok(Turn::Quiet),
        Err(error) => return Err(error),
    };
    match sink.write(&buffer[..length]) {
        // A pipe takes PIPE_BUF bytes whole or not at all; should it ever not, the rest follows.
        Ok(written) if written == length => Ok(Turn::Moved(length)),
        Ok(written) => Ok(Turn::Blocked(buffer[written..length].to_vec())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Ok(Turn::Blocked(buffer[..length].to_vec()))
        }
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Turn::NoReader),
        Err(error) => Err(error),
    }
}

async fn write_all(sink: &Watched, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        let written = sink
            .async_io(Interest::WRITABLE, |mut sink| sink.write(rest))
            .await?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Copies what the client types until its end (after CloseIO) or the exit of the process.
pub(super) async fn relay_input(terminal: Rc<Terminal>, input: Input) {
    if let Err(error) = copy_input(&terminal, &input).await {
        log::error!("terminal input: relay ends: {error}");
    }
    input.hold.take();
}

async fn copy_input(terminal: &Terminal, input: &Input) -> io::Result<()> {
    let edges = Edges::new(&terminal.master, false)?;
    let mut last = b'\n';
    while !terminal.exited.get() {
        let chunk = tokio::select! {
            biased;
            () = terminal.exit.notified() => return Ok(()),
            chunk = input.fifo.async_io(Interest::READABLE, read_chunk) => chunk?,
        };
        let Some(&end) = chunk.last() else {
            return type_in(terminal, &edges, &end_of_input(&terminal.master, last)?).await;
        };
        last = end;
        type_in(terminal, &edges, &chunk).await?;
    }
    Ok(())
}

fn read_chunk(mut fifo: &File) -> io::Result<Vec<u8>> {
    let mut buffer = [0; CHUNK];
    let length = fifo.read(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

/// Writes to the master, waiting while the container does not read its input.
async fn type_in(terminal: &Terminal, edges: &Edges, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() && !terminal.exited.get() {
        match (&terminal.master).write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if is_quiet(&error) => terminal.changed(edges).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What tells a program that reads lines from a terminal that there are no more: its end-of-file
/// character, once at the start of a line and twice within one (termios(3)). A program in raw
/// mode reads bytes and gets none that nobody typed.
fn end_of_input(master: &File, last: u8) -> io::Result<Vec<u8>> {
    let Ok(settings) = tcgetattr(master) else {
        return Ok(Vec::new());
    };
    if !settings.local_flags.contains(LocalFlags::ICANON) {
        return Ok(Vec::new());
    }
    let end = settings.control_chars[SpecialCharacterIndices::VEOF as usize];
    Ok(match last {
        b'\n' | b'\r' => vec![end],
        _ => vec![end, end],
    })
}

/// Whether there is only nothing to do: no bytes or no room now, or nobody on the other side.
fn is_quiet(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EIO)
}
