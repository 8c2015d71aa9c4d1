//! Collecting children: `reap` for the one reaper of a serving shim, and waits by pid for the
//! short-lived actions (`start`, `delete`) and for tests, which must not take another's child.

#![expect(unsafe_code, reason = "wait4 writes the status through a pointer")]

use std::io;
use std::time::Duration;

use crate::errno::retry;
use crate::spawn::Child;

/// A child that has ended and has been collected: its pid may be used again from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    /// The pid that the child had, in the caller's PID namespace.
    pub pid: i32,
    /// The exit code, or 128 plus the number of the signal that killed it.
    pub status: u32,
}

/// Collects one child of this process that has ended, whichever it is (wait4(2) with -1 and
/// WNOHANG). `None` when none has ended, also when there are no children at all.
///
/// Only the reaper calls this (DESIGN rule 3): it takes the exit status away from every wait by
/// pid. One SIGCHLD may stand for many children: call until `None`.
pub fn reap() -> io::Result<Option<Exited>> {
    wait4(-1, libc::WNOHANG)
}

/// Collects the child `pid` if it has ended; `None` while it runs, and when it is not (any
/// longer) an uncollected child of this process.
pub fn try_wait_pid(pid: i32) -> io::Result<Option<Exited>> {
    wait4(positive(pid)?, libc::WNOHANG)
}

/// Waits until the child `pid` ends, and collects it. `NotFound` when it is not (any longer) an
/// uncollected child of this process. Blocks: not for a serving shim.
pub fn wait_pid(pid: i32) -> io::Result<Exited> {
    wait4(positive(pid)?, 0)?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("process {pid} is no child to wait for"),
        )
    })
}

/// Waits at most `timeout` until `child` ends, and collects it; `None` when it still runs then.
/// Blocks: not for a serving shim.
pub fn wait_timeout(child: &Child, timeout: Duration) -> io::Result<Option<Exited>> {
    if crate::pidfd::wait_readable(&child.pidfd, timeout)? {
        wait_pid(child.pid).map(Some)
    } else {
        Ok(None)
    }
}

/// Whether `pid` is a child of this process that nobody has collected yet. It tells a process
/// of ours from one that got the same pid later: a pid is free again only once it is collected.
pub fn is_child(pid: i32) -> bool {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // With WNOHANG the call never waits, so no signal interrupts it.
    pid > 0 && waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), flags).is_ok()
}

/// A pid that names one process: 0 and negative numbers would mean groups or any child.
fn positive(pid: i32) -> io::Result<i32> {
    if pid > 0 {
        Ok(pid)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{pid} is not the pid of a process"),
        ))
    }
}

fn wait4(pid: i32, flags: i32) -> io::Result<Option<Exited>> {
    let mut status = 0;
    // SAFETY: `status` outlives the call, and a null rusage is allowed.
    let result = retry(|| unsafe {
        libc::wait4(
            pid,
            &raw mut status,
            flags | libc::__WALL,
            std::ptr::null_mut(),
        )
    });
    match result {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some(Exited {
            pid,
            status: decode(status),
        })),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The shell's convention, which containerd's exit events use as well.
fn decode(status: i32) -> u32 {
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    u32::try_from(code).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::Spawn;

    fn shell(script: &str) -> Child {
        let mut spawn = Spawn::new("/bin/sh");
        spawn.args.extend(["-c".into(), script.into()]);
        spawn.spawn().unwrap()
    }

    #[test]
    fn status_is_the_exit_code() {
        let child = shell("exit 7");
        assert_eq!(
            wait_pid(child.pid).unwrap(),
            Exited {
                pid: child.pid,
                status: 7
            }
        );
    }

    #[test]
    fn status_of_a_killed_child_is_128_plus_the_signal() {
        let child = shell("kill -TERM $$");
        assert_eq!(wait_pid(child.pid).unwrap().status, 128 + 15);
    }

    #[test]
    fn only_an_uncollected_child_is_ours() {
        let child = shell("exit 0");
        assert!(is_child(child.pid));
        wait_pid(child.pid).unwrap();
        assert!(!is_child(child.pid));
        assert!(!is_child(crate::process::parent_pid()));
        assert!(!is_child(0) && !is_child(-1));
    }

    #[test]
    fn a_child_is_collected_once() {
        let child = shell("exit 0");
        wait_pid(child.pid).unwrap();
        assert_eq!(
            wait_pid(child.pid).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(try_wait_pid(child.pid).unwrap(), None);
    }

    #[test]
    fn wait_timeout_gives_up_on_a_running_child() {
        let child = shell("exec sleep 1000");
        assert_eq!(try_wait_pid(child.pid).unwrap(), None);
        assert_eq!(
            wait_timeout(&child, Duration::from_millis(20)).unwrap(),
            None
        );
        crate::pidfd::kill(child.pid, libc::SIGKILL).unwrap();
        let exited = wait_timeout(&child, Duration::from_secs(10))
            .unwrap()
            .unwrap();
        assert_eq!(exited.status, 137);
    }

    #[test]
    fn groups_are_refused() {
        for pid in [0, -1, -7] {
            assert_eq!(
                wait_pid(pid).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        }
    }
}
