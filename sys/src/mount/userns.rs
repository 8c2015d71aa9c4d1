//! A user namespace made only to carry an id mapping: mount_setattr(2) takes the mapping of an
//! idmapped mount from one. A child process holds it for as long as it takes to open it.
#![allow(unsafe_code, reason = "the child is made by a bare clone(2)")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::options::{IdMapping, IdRange};

/// A descriptor of a new user namespace with the given mapping.
pub(super) fn with_mapping(mapping: &IdMapping) -> io::Result<OwnedFd> {
    let holder = Holder::start()?;
    write_map(&holder, "uid_map", &mapping.uids)?;
    write_map(&holder, "gid_map", &mapping.gids)?;
    // The descriptor keeps the namespace alive when the holder is gone. The pid cannot have been
    // reused: nobody but us collects the holder, which stays a zombie until then.
    let path = format!("/proc/{}/ns/user", holder.pid);
    Ok(fs::File::open(path)?.into())
}

fn write_map(holder: &Holder, file: &str, ranges: &[IdRange]) -> io::Result<()> {
    let mut lines = String::new();
    for IdRange {
        inside,
        outside,
        count,
    } in ranges
    {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{inside} {outside} {count}");
    }
    let path = format!("/proc/{}/{file}", holder.pid);
    // The kernel wants the whole map in one write, which this is.
    fs::write(path, lines)
}

/// The child that holds the namespace. Dropping it kills and collects it.
///
/// The process has one reaper, `wait4(-1)` at SIGCHLD, which must never see this child: so its
/// exit signal is 0 instead of SIGCHLD. No signal is sent when it ends, and a wait without
/// `__WCLONE` or `__WALL` does not consider it (wait(2), Linux notes).
pub(super) struct Holder {
    pid: libc::pid_t,
}

impl Holder {
    pub(super) fn start() -> io::Result<Self> {
        // CLONE_FILES: the child shares the descriptor table instead of holding copies of the
        // shim's sockets and FIFOs open, which would delay their end of file.
        let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::CLONE_FILES);
        // Blocked in the child from its first instruction: no handler of ours may run there.
        let parent = nix::unistd::getpid().as_raw();
        let mut before = SigSet::empty();
        pthread_sigmask(
            SigmaskHow::SIG_SETMASK,
            Some(&SigSet::all()),
            Some(&mut before),
        )?;
        // The order of clone's arguments is the architecture's own.
        let (first, second) = if cfg!(target_arch = "s390x") {
            (0, flags)
        } else {
            (flags, 0)
        };
        // SAFETY: without CLONE_VM and with a null stack this is fork(2): the child gets a copy of
        // the memory and returns on a copy of the stack. The remaining arguments are unused
        // without their flags.
        let result =
            unsafe { libc::syscall(libc::SYS_clone, first, second, 0_usize, 0_usize, 0_usize) };
        if result == 0 {
            hold(parent);
        }
        let error = io::Error::last_os_error();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        match libc::pid_t::try_from(result) {
            Ok(pid) if pid > 0 => Ok(Self { pid }),
            _ => Err(error),
        }
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> libc::pid_t {
        self.pid
    }
}

/// What the child does: nothing, until SIGKILL or the end of the thread that made it. After a
/// fork of a process with threads only bare system calls are allowed: no allocation, no lock, no
/// panic.
fn hold(parent: libc::pid_t) -> ! {
    // SAFETY: prctl, getppid, pause and _exit take no pointers and touch no memory of ours.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        // A parent that ended before prctl(2) sends no more signal.
        while libc::getppid() == parent {
            // Every signal is blocked, so only SIGKILL ends this.
            libc::pause();
        }
        libc::_exit(0);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: no pointers but the null status; the pid is our own uncollected child's, so it
        // cannot mean another process.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            while libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WCLONE) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}
