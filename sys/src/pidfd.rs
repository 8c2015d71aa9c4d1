//! Processes by descriptor, which cannot mean another process once the pid is used again
//! (pidfd_open(2), pidfd_send_signal(2)), and the two kills by number that remain.

#![expect(unsafe_code, reason = "pidfd system calls have no wrapper in nix")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::errno::check;

/// Opens the process `pid`; the descriptor is close-on-exec and becomes readable when the
/// process has ended. A process that does not exist is ESRCH (`ErrorKind::Uncategorized`,
/// see [`is_gone`]).
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` (0 only asks whether it could be sent) to the process behind `pidfd`. ESRCH
/// when it has been collected already ([`is_gone`]); a zombie takes it without effect.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo makes the kernel fill it in as kill(2) does.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            0,
        )
    })?;
    Ok(())
}

/// Whether the process behind `pidfd` ends within `timeout`. Blocks as long.
pub fn wait_readable(pidfd: impl AsFd, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now().checked_add(timeout);
    loop {
        let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
        // Rounded up: 0 milliseconds would make a busy loop of the last one.
        let left_ms = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        if crate::pipe::poll_fd(&pidfd, libc::POLLIN, left_ms)? != 0 {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Sends `signal` to the process `pid`. Sound only for a child that this process has not yet
/// collected; `InvalidInput` for 0 and negative numbers, which would mean groups or everybody.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    kill_checked(pid, pid, 1, signal)
}

/// Sends `signal` to every process of the group `pgid`, which must be led by (or once was) an
/// uncollected child. `InvalidInput` below 2: 0 is the caller's own group and 1 is not ours.
pub fn kill_group(pgid: i32, signal: i32) -> io::Result<()> {
    kill_checked(pgid, pgid.saturating_neg(), 2, signal)
}

fn kill_checked(number: i32, target: i32, least: i32, signal: i32) -> io::Result<()> {
    if number < least {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("will not send signal {signal} to process or group {number}"),
        ));
    }
    // SAFETY: no pointers are passed.
    check(unsafe { libc::kill(target, signal) })?;
    Ok(())
}

/// Whether an error of this module says that the process no longer exists (ESRCH).
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::Spawn;
    use crate::wait::wait_pid;

    fn sleeper(new_process_group: bool) -> crate::spawn::Child {
        let mut spawn = Spawn::new("/bin/sleep");
        spawn.args.push("1000".into());
        spawn.new_process_group = new_process_group;
        spawn.spawn().unwrap()
    }

    #[test]
    fn a_signal_by_descriptor_arrives_and_fails_after_collection() {
        let child = sleeper(false);
        let fd = open(child.pid).unwrap();
        send_signal(fd.as_fd(), 0).unwrap();
        assert!(!wait_readable(&fd, Duration::ZERO).unwrap());
        send_signal(fd.as_fd(), libc::SIGTERM).unwrap();
        assert!(wait_readable(&fd, Duration::from_secs(10)).unwrap());
        assert_eq!(wait_pid(child.pid).unwrap().status, 143);
        assert!(is_gone(
            &send_signal(fd.as_fd(), libc::SIGTERM).unwrap_err()
        ));
        assert!(is_gone(&send_signal(child.pidfd.as_fd(), 0).unwrap_err()));
    }

    #[test]
    fn a_group_is_killed_whole() {
        let child = sleeper(true);
        kill_group(child.pid, libc::SIGKILL).unwrap();
        assert_eq!(wait_pid(child.pid).unwrap().status, 137);
        assert!(is_gone(&kill_group(child.pid, libc::SIGKILL).unwrap_err()));
    }

    #[test]
    fn nobody_is_killed_by_a_strange_number() {
        for pid in [0, -1, i32::MIN] {
            assert_eq!(
                kill(pid, 0).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        }
        for group in [1, 0, -1, i32::MIN] {
            assert_eq!(
                kill_group(group, 0).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        }
    }
}
