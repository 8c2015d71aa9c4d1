//! Signals that arrive as data: a signalfd for the event loop, and SIGPIPE out of the way.

#![expect(
    unsafe_code,
    reason = "signal sets and signalfd are C interfaces with pointers"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::errno::{check, count, retry};

/// One signal as read from a [`SignalFd`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalInfo {
    /// The signal's number.
    pub signo: i32,
    /// Who sent it: the sender's pid, or the child's for SIGCHLD; 0 from the kernel.
    pub pid: i32,
}

/// A nonblocking, close-on-exec signalfd(2).
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` for the calling thread and every thread and child it creates from now
    /// on, and makes a descriptor that becomes readable when one of them is pending. Call it
    /// before the first other thread exists: another thread would still take the signal. A
    /// child of [`crate::spawn`] starts with an empty mask nevertheless.
    ///
    /// `InvalidInput` when a number is no signal.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the whole set.
        let mut set = unsafe {
            check(libc::sigemptyset(set.as_mut_ptr()))?;
            set.assume_init()
        };
        for &signal in signals {
            // SAFETY: the set is initialised; a bad number is refused with EINVAL.
            check(unsafe { libc::sigaddset(&raw mut set, signal) })?;
        }
        // SAFETY: both sets are valid or null. The function returns an error number.
        let errno =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd = check(unsafe {
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        })?;
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the next pending signal; `None` when there is none. Standard signals coalesce:
    /// one SIGCHLD may stand for many children.
    pub fn read(&self) -> io::Result<Option<SignalInfo>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has `size` writable bytes.
        match retry(|| unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) }) {
            Ok(length) if count(length) == size => {
                // SAFETY: the structure was zeroed, and the kernel filled all of it; every bit
                // pattern is valid for its integers.
                let info = unsafe { info.assume_init() };
                Ok(Some(SignalInfo {
                    signo: info.ssi_signo.cast_signed(),
                    pid: info.ssi_pid.cast_signed(),
                }))
            }
            Ok(length) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("signalfd gave {length} bytes instead of {size}"),
            )),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Makes writing to a pipe or socket whose reader has gone an error (`BrokenPipe`) instead of
/// the end of the process. Children of [`crate::spawn`] get the default back.
pub fn ignore_sigpipe() -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler that could run.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test signals go to the test's own thread (tgkill), since with `cargo test` other
    // threads of the process have not blocked them.
    fn raise(signal: i32) {
        // SAFETY: raise has no memory preconditions.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn blocked_signals_are_read_in_turn() {
        let fd = SignalFd::new(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
        assert_eq!(fd.read().unwrap(), None);
        raise(libc::SIGUSR1);
        raise(libc::SIGUSR1);
        raise(libc::SIGUSR2);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(
            fd.read().unwrap(),
            Some(SignalInfo {
                signo: libc::SIGUSR1,
                pid: own
            })
        );
        assert_eq!(
            fd.read().unwrap(),
            Some(SignalInfo {
                signo: libc::SIGUSR2,
                pid: own
            })
        );
        assert_eq!(fd.read().unwrap(), None);
    }

    #[test]
    fn a_number_that_is_no_signal_is_refused() {
        assert_eq!(
            SignalFd::new(&[0]).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            SignalFd::new(&[1000]).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn a_write_without_reader_is_an_error() {
        use std::io::Write;
        ignore_sigpipe().unwrap();
        let (reader, writer) = crate::pipe::pipe().unwrap();
        drop(reader);
        let error = std::fs::File::from(writer).write(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
