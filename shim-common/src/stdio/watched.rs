//! Descriptors in the event loop: the usual registration, and one for terminals.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An end of a pipe or FIFO in the event loop.
pub(super) type Watched = AsyncFd<File>;

pub(super) use crate::watch::watch;

/// As [`watch`] for an end of a pipe, which becomes nonblocking.
pub(super) fn watch_pipe(end: OwnedFd, interest: Interest) -> io::Result<Watched> {
    sys::pipe::set_nonblocking(&end, true)?;
    watch(File::from(end), interest)
}

/// Which of `events` hold for `fd` now (errors and hang-ups are always told). Asks again when
/// interrupted: taking that for "none" would wait for an edge that has passed.
pub(super) fn state(fd: impl AsFd, events: PollFlags) -> io::Result<PollFlags> {
    let mut entries = [PollFd::new(fd.as_fd(), events)];
    loop {
        match poll(&mut entries, PollTimeout::ZERO) {
            Ok(_) => return Ok(entries[0].revents().unwrap_or(PollFlags::empty())),
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Edges of readiness of one descriptor whose hang-up is not final.
///
/// The event loop takes a hang-up for the end and reports it for ever after, which is a busy
/// loop on a terminal whose last user closed it: the next user may open it again (systemd does
/// so on /dev/console for each message). A poll set of our own between the two has no such
/// memory.
pub(super) struct Edges(AsyncFd<EpollFile>);

struct EpollFile(Epoll);

impl AsRawFd for EpollFile {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.0.as_raw_fd()
    }
}

impl Edges {
    /// Watches `fd` for becoming readable or writable.
    pub(super) fn new(fd: impl AsFd, readable: bool) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let side = if readable {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::EPOLLOUT
        };
        epoll.add(fd, EpollEvent::new(side | EpollFlags::EPOLLET, 0))?;
        Ok(Self(watch(EpollFile(epoll), Interest::READABLE)?))
    }

    /// Waits until the state of the descriptor changed since the last call; try the operation
    /// first and call this when it would block.
    pub(super) async fn changed(&self) -> io::Result<()> {
        self.0
            .async_io(Interest::READABLE, |epoll| {
                let mut events = [EpollEvent::empty()];
                match epoll.0.wait(&mut events, EpollTimeout::ZERO) {
                    Ok(0) | Err(nix::Error::EINTR) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(_) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            })
            .await
    }
}
