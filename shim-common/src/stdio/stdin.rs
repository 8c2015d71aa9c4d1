//! Input: from the client's FIFO to the container's standard input by splice.
//!
//! A write end of the client's FIFO is held until CloseIO, so that clients may come late, go and
//! come back. After CloseIO the container sees the end of its input when the last client closed.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;

use tokio::io::Interest;

use super::splice::{pump, reader_gone};
use super::watched::{Watched, watch_pipe};

/// The held write end of a stdin FIFO, which CloseIO drops.
pub(super) type Hold = Rc<RefCell<Option<File>>>;

/// The client's side of a container's standard input.
pub(super) struct Input {
    pub(super) fifo: Watched,
    pub(super) hold: Hold,
}

/// Opens the FIFO at `path` without ever waiting. `InvalidInput` when it is something else.
pub(super) fn open_input(path: &Path) -> io::Result<Input> {
    let reader = sys::pipe::open_fifo(path, libc::O_RDONLY)?;
    let writer = sys::pipe::reopen(&reader, libc::O_WRONLY | libc::O_NONBLOCK)?;
    Ok(Input {
        fifo: watch_pipe(reader, Interest::READABLE)?,
        hold: Rc::new(RefCell::new(Some(writer.into()))),
    })
}

/// Copies the input until its end or until nobody in the container can read it any more; then
/// everything is closed, the held write end included, so that nothing is left of a process
/// whose client never said CloseIO.
pub(super) async fn relay(input: Input, sink: Watched) {
    let Input { fifo, hold } = input;
    let result = tokio::select! {
        biased;
        result = pump(&fifo, &sink, |_| ()) => result.map(|_| ()),
        result = reader_gone(&sink) => result,
    };
    if let Err(error) = result {
        log::error!("stdin: relay ends: {error}");
    }
    hold.take();
}
