//! The kernel's log, and the clock of its lines.

#![expect(unsafe_code, reason = "klogctl has no safe wrapper")]

use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The newest lines of the kernel's log (syslog(2), `SYSLOG_ACTION_READ_ALL`), `size` bytes of them
/// at most: each begins with `<PRIORITY>` and, unless the kernel was told otherwise, with
/// `[SECONDS.MICROSECONDS]`. Takes a few milliseconds. `PermissionDenied` without the right to it.
pub fn newest(size: usize) -> io::Result<Vec<u8>> {
    const READ_ALL: libc::c_int = 3;
    let mut buffer = vec![0_u8; size];
    let length = libc::c_int::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the kernel writes `length` bytes at most, and the buffer has so many.
    let count = unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), length) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(count);
    Ok(buffer)
}

/// A time that is not after now on the clock that stamps the log, give or take what that clock and
/// the others may have been apart since the machine was started: it is none that can be read, and
/// follows one or the other of these.
pub fn now() -> io::Result<Duration> {
    let steady = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let raw = clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)?;
    Ok(Duration::from(steady).min(raw.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_read_and_no_more_than_was_asked_for() {
        match newest(4096) {
            Ok(lines) => {
                assert!(lines.len() <= 4096);
                assert!(lines.is_empty() || lines.starts_with(b"<"));
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert!(now().unwrap() > Duration::ZERO);
    }
}
