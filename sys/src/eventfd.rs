//! Event counters (eventfd(2)), by which cgroup v1 reports that a limit was hit.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::eventfd::{EfdFlags, EventFd as NixEventFd};

/// A nonblocking, close-on-exec event counter.
#[derive(Debug)]
pub struct EventFd(NixEventFd);

impl EventFd {
    /// A counter at 0.
    pub fn new() -> io::Result<Self> {
        Ok(Self(NixEventFd::from_flags(
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?))
    }

    /// Takes the count and sets it to 0; `None` when it is 0 already.
    pub fn read(&self) -> io::Result<Option<u64>> {
        loop {
            match self.0.read() {
                Ok(count) => return Ok(Some(count)),
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Adds `value` to the count.
    pub fn write(&self, value: u64) -> io::Result<()> {
        self.0.write(value)?;
        Ok(())
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(fd: EventFd) -> Self {
        fd.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once() {
        let fd = EventFd::new().unwrap();
        assert_eq!(fd.read().unwrap(), None);
        fd.write(2).unwrap();
        fd.write(3).unwrap();
        assert_eq!(fd.read().unwrap(), Some(5));
        assert_eq!(fd.read().unwrap(), None);
        assert!(crate::process::is_cloexec(&fd).unwrap());
    }
}
