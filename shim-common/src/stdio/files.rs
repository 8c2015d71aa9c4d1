//! Output into a plain file. A disk may block for as long as it likes, so every touch of the
//! file is made by a helper thread, which lives only while there is something to write.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::poll::PollFlags;
use tokio::io::Interest;

use super::stream::{Ending, Stream};
use super::watched::{state, watch};
use crate::helper;

/// How long a helper waits for more before it ends: a container that writes steadily keeps one
/// thread, not one per line.
const QUIET: Duration = Duration::from_millis(100);
/// How long between two tries when the file takes nothing (a full disk).
const RETRY: Duration = Duration::from_secs(1);
/// What one turn copies; it lies on the helper's stack.
const CHUNK: usize = 32 * 1024;

/// Opens `path` to append to it. With `create` it and its folders are made when missing, as
/// `file://` asks. For a helper thread: this may block.
pub(super) fn open_append(path: &Path, create: bool) -> io::Result<File> {
    if create && let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
    }
    OpenOptions::new()
        .append(true)
        .create(create)
        .mode(0o644)
        .open(path)
}

/// One stream into a file that another may share.
pub(super) struct FileCopy {
    source: Arc<File>,
    file: Arc<File>,
    path: PathBuf,
}

impl FileCopy {
    pub(super) fn new(source: File, file: Arc<File>, path: PathBuf) -> Self {
        Self {
            source: Arc::new(source),
            file,
            path,
        }
    }
}

enum Pause {
    /// The source has ended and everything is in the file.
    Ended,
    /// Nothing came for a while.
    Quiet,
    /// The relay was shut.
    Stopped,
}

/// Copies one stream to its end. Dropped before, the helper stops at its next wait.
pub(super) async fn relay(copy: FileCopy, stream: Rc<Stream>) {
    let ending = Ending(stream);
    let stream = &ending.0;
    if let Err(error) = run(&copy, stream).await {
        log::error!("{stream}: relay ends: {error}");
    }
}

async fn run(copy: &FileCopy, stream: &Stream) -> io::Result<()> {
    loop {
        {
            // In the event loop only while nobody copies: each write of the container would
            // wake this thread for nothing otherwise.
            let waiting = watch(Arc::clone(&copy.source), Interest::READABLE)?;
            waiting
                .async_io(Interest::READABLE, |source| {
                    match state(source, PollFlags::POLLIN)?.is_empty() {
                        true => Err(io::ErrorKind::WouldBlock.into()),
                        false => Ok(()),
                    }
                })
                .await?;
        }
        let (alive, stop) = channel();
        let (source, file) = (Arc::clone(&copy.source), Arc::clone(&copy.file));
        let path = copy.path.clone();
        let copied = helper::run(move || {
            let mut moved = 0;
            let pause = copy_while_busy(&source, &file, &path, &stop, &mut moved);
            (moved, pause)
        })
        .await;
        let _: Sender<()> = alive;
        let (moved, pause) = copied.map_err(io::Error::other)?;
        stream.count(moved);
        if let Pause::Ended = pause? {
            return Ok(());
        }
    }
}

/// In the helper: copies until the source ends, is quiet for a while, or the relay is shut.
fn copy_while_busy(
    mut source: &File,
    file: &File,
    path: &Path,
    stop: &Receiver<()>,
    moved: &mut usize,
) -> io::Result<Pause> {
    let mut buffer = [0; CHUNK];
    let quiet = i32::try_from(QUIET.as_millis()).unwrap_or(i32::MAX);
    loop {
        if stopped(stop, Duration::ZERO) {
            return Ok(Pause::Stopped);
        }
        match source.read(&mut buffer) {
            Ok(0) => return Ok(Pause::Ended),
            Ok(length) => {
                let left = write_all(file, path, &buffer[..length], stop);
                *moved += length - left;
                if left > 0 {
                    log::error!("{}: {left} bytes of output are lost", path.display());
                    return Ok(Pause::Stopped);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if sys::pipe::poll_fd(source, libc::POLLIN, quiet)? == 0 {
                    return Ok(Pause::Quiet);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Writes all of `rest`, trying again once a second while the file takes nothing: the pipe fills
/// and holds the writer meanwhile, and nothing is lost. Returns what was left when the relay was
/// shut.
fn write_all(mut file: &File, path: &Path, mut rest: &[u8], stop: &Receiver<()>) -> usize {
    let mut failing = false;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(written) if written > 0 => {
                rest = rest.get(written..).unwrap_or_default();
                if failing {
                    log::info!("{}: writing again", path.display());
                    failing = false;
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(_) => {}
            Err(error) if failing => log::trace!("{}: {error}", path.display()),
            Err(error) => {
                log::error!(
                    "{}: {error}; output waits until it can be written",
                    path.display()
                );
                failing = true;
            }
        }
        if stopped(stop, RETRY) {
            return rest.len();
        }
    }
    0
}

/// Whether the relay was shut, waiting for that at most `wait`.
fn stopped(stop: &Receiver<()>, wait: Duration) -> bool {
    stop.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected)
}
