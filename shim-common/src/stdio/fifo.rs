//! Output through a FIFO: from the container's pipe by splice, to whoever reads, whenever.
//!
//! The relay holds both ends of the FIFO while the container may write. So opening never waits
//! for the other side, a reader may go and come back (containerd does when it restarts), and a
//! reader that is away blocks the writer of this stream and nothing else.
//!
//! At the end of the container's pipe the FIFO is closed and its reader sees the end of file;
//! what it has not read yet stays for it, as the kernel keeps a FIFO's bytes while anybody has
//! it open. With no reader there at that moment, closing would destroy the bytes: the write end
//! stays open until a reader has come, or the relay is shut.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;

use nix::poll::PollFlags;
use tokio::io::Interest;

use super::splice::{End, pump, reader_gone};
use super::stream::{Ending, Phase, Stream};
use super::watched::{Watched, state, watch_pipe};

/// Both ends of an output FIFO.
pub(super) struct FifoEnds {
    pub(super) reader: File,
    pub(super) writer: Watched,
}

/// Opens the FIFO at `path` without ever waiting. `InvalidInput` when it is something else.
pub(super) fn open_output(path: &Path) -> io::Result<FifoEnds> {
    // The read end first: with it there, opening the write end cannot fail for want of one.
    let reader = sys::pipe::open_fifo(path, libc::O_RDONLY)?;
    let writer = sys::pipe::reopen(&reader, libc::O_WRONLY | libc::O_NONBLOCK)?;
    Ok(FifoEnds {
        reader: reader.into(),
        writer: watch_pipe(writer, Interest::WRITABLE)?,
    })
}

/// Copies one stream to its end and beyond: until its last byte has a reader.
pub(super) async fn relay(source: Rc<Watched>, sink: Watched, stream: Rc<Stream>) {
    let ending = Ending(stream);
    let stream = &ending.0;
    let end = tokio::select! {
        biased;
        end = pump(&source, &sink, |bytes| stream.count(bytes)) => end,
        end = released_and_gone(&sink, stream) => end,
    };
    drop(source);
    match end {
        Ok(End::Source) => deliver(&sink, stream).await,
        Ok(End::Sink) => log::debug!("{stream}: the reader is gone"),
        Err(error) => log::error!("{stream}: relay ends: {error}"),
    }
    // The reader sees its end of file before anybody hears that the stream is drained.
    drop(sink);
}

/// While our own read end exists, no reader is ever missed; without it, its absence is the end.
async fn released_and_gone(sink: &Watched, stream: &Stream) -> io::Result<End> {
    stream.released.notified().await;
    reader_gone(sink).await?;
    Ok(End::Sink)
}

/// Holds a FIFO that has got its last bytes until they have a reader.
pub(super) async fn deliver(writer: &Watched, stream: &Stream) {
    // Without a read end of our own this is a logger's pipe, or nobody cares any more.
    let held = stream.own_reader.take().is_some();
    if !held || has_reader(writer.get_ref()) {
        return;
    }
    stream.enter(Phase::AwaitingReader);
    if let Err(error) = reader_came(writer.get_ref()).await {
        // Keep the bytes all the same; the relay's end closes this.
        log::warn!("{stream}: cannot watch for a reader: {error}");
        std::future::pending::<()>().await;
    }
}

async fn reader_came(writer: &File) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let opens = super::opens::watch_opens(Path::new(&path))?;
    while !has_reader(writer) {
        opens.next().await?;
    }
    Ok(())
}

/// Whether anybody has the FIFO behind this write end open for reading.
pub(super) fn has_reader(writer: &File) -> bool {
    state(writer, PollFlags::POLLOUT).is_ok_and(|state| !state.contains(PollFlags::POLLERR))
}
