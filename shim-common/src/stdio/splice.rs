//! Moving bytes from one pipe to another without copying them.

use std::fs::File;
use std::io;
use std::time::Duration;

use nix::poll::PollFlags;
use sys::pipe::splice;
use tokio::io::Interest;
use tokio::time::timeout;

use super::watched::{Watched, state};

/// How much one stream may move before the others and the RPCs get their turn (DESIGN rule 8).
pub(super) const TURN: usize = 256 * 1024;

/// What a pipe can hold by default, and on both sides of a busy stream: with 256 KiB there are
/// fewer changes of process (docs/adr/0004-stdio-path.md). All of a user's pipes share a quota
/// (`fs.pipe-user-pages-soft`) past which the containers' own pipes shrink to two pages, so a
/// quiet stream gives the room back.
const SMALL: usize = 64 * 1024;
const LARGE: usize = 256 * 1024;
/// A move of this many bytes speaks for a busy stream, so many more of them than of others make
/// it one, and so long without a byte unmakes it.
const BUSY_MOVE: usize = 16 * 1024;
const BUSY_MOVES: u32 = 32;
const QUIET: Duration = Duration::from_secs(5);

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
    let mut size = Size::Small { busy: 0 };
    loop {
        let next = source.async_io(Interest::READABLE, |from| {
            would_block_if(splice_once(from, sink.get_ref())?, &Step::SourceEmpty)
        });
        // The timer exists only for some seconds after a burst.
        let mut step = match size {
            Size::Small { .. } => next.await?,
            Size::Large => match timeout(QUIET, next).await {
                Ok(step) => step?,
                Err(_) => {
                    size = Size::Small { busy: 0 };
                    resize(source, sink, SMALL);
                    continue;
                }
            },
        };
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
                if size.grows(bytes) {
                    resize(source, sink, LARGE);
                }
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

enum Size {
    Small { busy: u32 },
    Large,
}

impl Size {
    /// Counts a move; whether it makes the stream a busy one.
    fn grows(&mut self, bytes: usize) -> bool {
        let Self::Small { busy } = self else {
            return false;
        };
        *busy = if bytes < BUSY_MOVE {
            busy.saturating_sub(1)
        } else {
            *busy + 1
        };
        if *busy < BUSY_MOVES {
            return false;
        }
        *self = Self::Large;
        true
    }
}

fn resize(source: &Watched, sink: &Watched, size: usize) {
    for end in [source, sink] {
        // Refused past the quota, and while more than that waits in the pipe; both do no harm.
        if let Err(error) = sys::pipe::set_size(end.get_ref(), size) {
            log::debug!("resize a pipe to {size}: {error}");
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
