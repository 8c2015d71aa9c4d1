//! Moving bytes from one pipe to another without copying them.

use std::fs::File;
use std::io;

use nix::poll::PollFlags;
use sys::pipe::splice;
use tokio::io::Interest;

use super::watched::{Watched, state};

/// How much one stream may move before the others and the RPCs get their turn (DESIGN rule 8).
pub(super) const TURN: usize = 256 * 1024;

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The source has no writer any more and every byte of it was moved.
    Source,
    /// The sink has no reader any more.
    Sink,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Moved(usize),
    SourceEmpty,
    SinkFull,
    End(End),
}

/// Moves everything from `source` to `sink` until one of them ends, waiting only for the side
/// that holds it up. `moved` is told how many bytes went over.
pub(super) async fn pump(
    source: &Watched,
    sink: &Watched,
    mut moved: impl FnMut(usize),
) -> io::Result<End> {
    let mut budget = TURN;
    loop {
        let mut step = source
            .async_io(Interest::READABLE, |from| {
                would_block_if(splice_once(from, sink.get_ref())?, &Step::SourceEmpty)
            })
            .await?;
        if step == Step::SinkFull {
            step = sink
                .async_io(Interest::WRITABLE, |to| {
                    would_block_if(splice_once(source.get_ref(), to)?, &Step::SinkFull)
                })
                .await?;
        }
        match step {
            Step::Moved(bytes) => {
                moved(bytes);
                budget = budget.saturating_sub(bytes);
                if budget == 0 {
                    budget = TURN;
                    tokio::task::yield_now().await;
                }
            }
            Step::End(end) => return Ok(end),
            Step::SourceEmpty | Step::SinkFull => {}
        }
    }
}

/// Waits until nobody reads from the pipe that `sink` writes to any more.
pub(super) async fn reader_gone(sink: &Watched) -> io::Result<()> {
    loop {
        let mut guard = sink.ready(Interest::WRITABLE).await?;
        if guard.ready().is_write_closed() {
            return Ok(());
        }
        guard.clear_ready();
    }
}

fn would_block_if(step: Step, blocked: &Step) -> io::Result<Step> {
    if step == *blocked {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(step)
}

/// One splice, and when it says "would block", which side it was.
///
/// Both sides must be asked. Readiness here is edge-triggered: taking a sink for full that is
/// not (the source was empty a moment ago and has bytes now) would wait for an edge that never
/// comes. An ended source behind a full sink is also reported as "would block".
fn splice_once(source: &File, sink: &File) -> io::Result<Step> {
    loop {
        match splice(source, sink, TURN) {
            Ok(0) => return Ok(Step::End(End::Source)),
            Ok(bytes) => return Ok(Step::Moved(bytes)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Step::End(End::Sink));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let from = state(source, PollFlags::POLLIN)?;
        if !from.contains(PollFlags::POLLIN) {
            return Ok(if from.contains(PollFlags::POLLHUP) {
                Step::End(End::Source)
            } else {
                Step::SourceEmpty
            });
        }
        if state(sink, PollFlags::POLLOUT)?.is_empty() {
            return Ok(Step::SinkFull);
        }
    }
}
