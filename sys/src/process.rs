//! What a process says about itself: its name, group, subreaper role, OOM score, core scheduling
//! group and inherited descriptors.

#![expect(
    unsafe_code,
    reason = "prctl with its many shapes, and adopting an inherited descriptor"
)]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, OnceLock};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::errno::{check, context};

/// Makes this process the parent of its orphaned descendants (prctl(2),
/// `PR_SET_CHILD_SUBREAPER`): containers become ours when runc ends.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Sets the calling thread's name; the first thread's is the process's `comm`. The kernel keeps
/// 15 bytes. `InvalidInput` for a NUL byte.
pub fn set_name(name: &str) -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(&CString::new(name)?)?)
}

/// Puts this process group into a core scheduling group of its own, which its children inherit:
/// no foreign task runs beside them on one core (containerd's `SCHED_CORE`). EINVAL or ENODEV
/// where the kernel or the machine has no such thing.
pub fn share_core_scheduling_group() -> io::Result<()> {
    // Value of PIDTYPE_PGID, the scope of the command (linux/sched.h; prctl(2)).
    const SCOPE_PROCESS_GROUP: libc::c_ulong = 2;
    let address: libc::c_ulong = 0;
    let this: libc::c_ulong = 0;
    let create: libc::c_ulong = libc::c_ulong::from(libc::PR_SCHED_CORE_CREATE.unsigned_abs());
    // SAFETY: the create command takes no pointer.
    check(unsafe {
        libc::prctl(
            libc::PR_SCHED_CORE,
            create,
            this,
            SCOPE_PROCESS_GROUP,
            address,
        )
    })?;
    Ok(())
}

/// Sets the OOM score adjustment (-1000 to 1000, proc(5)) of a process. `PermissionDenied` for
/// EPERM and EACCES: lowering needs privilege, which a rootless shim does without.
pub fn set_oom_score_adj(pid: i32, value: i32) -> io::Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(&path, value.to_string())
        .map_err(|error| context(&error, format_args!("write {value} to {path}")))
}

/// The OOM score adjustment of a process.
pub fn oom_score_adj(pid: i32) -> io::Result<i32> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let text = std::fs::read_to_string(&path).map_err(|error| context(&error, &path))?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path} says {:?}", text.trim()),
        )
    })
}

/// Makes this process the leader of a new process group.
pub fn set_process_group() -> io::Result<()> {
    Ok(nix::unistd::setpgid(
        nix::unistd::Pid::from_raw(0),
        nix::unistd::Pid::from_raw(0),
    )?)
}

/// The effective user id.
pub fn euid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The effective group id.
pub fn egid() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// This process's pid.
pub fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// The pid of the parent.
pub fn parent_pid() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// The limit of open descriptors that this process was started with, once it is another.
static STARTED_WITH: OnceLock<libc::rlimit> = OnceLock::new();

/// Raises the limit of open descriptors of this process as far as it may: services are often
/// started with a soft limit of 1024 for the sake of select(2), which a shim with a hundred execs
/// passes, and Go programs do the same. Children of [`crate::spawn`] get the limit that this
/// process was started with.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes a rlimit, which outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur >= limit.rlim_max {
        return Ok(());
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: setrlimit reads a rlimit, which outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) })?;
    STARTED_WITH.get_or_init(|| limit);
    Ok(())
}

/// The limit of open descriptors that children are to get, if it is not this process's own.
pub(crate) fn descriptor_limit_of_children() -> Option<libc::rlimit> {
    STARTED_WITH.get().copied()
}

/// Keeps all threads on one heap (mallopt(3), `M_ARENA_MAX`), so that a short-lived helper
/// thread leaves no arena behind. Without glibc it does nothing. Call it before the first other thread exists.
pub fn arena_limit() {
    #[cfg(target_env = "gnu")]
    // SAFETY: changes a parameter of the allocator, under its own lock. It cannot fail for 1.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives freed heap pages back to the kernel (malloc_trim(3)). Without glibc it does nothing.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: works under the allocator's own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A duplicate of `fd`, close-on-exec.
pub fn dup_cloexec(fd: impl AsFd) -> io::Result<OwnedFd> {
    dup_cloexec_from(fd, 0)
}

/// A duplicate of `fd`, close-on-exec, with the lowest free number from `least` up.
pub fn dup_cloexec_from(fd: impl AsFd, least: RawFd) -> io::Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether execve closes `fd`.
pub fn is_cloexec(fd: impl AsFd) -> io::Result<bool> {
    Ok(fcntl(fd, FcntlArg::F_GETFD)? & libc::FD_CLOEXEC != 0)
}

/// Sets or clears close-on-exec.
pub fn set_cloexec(fd: impl AsFd, cloexec: bool) -> io::Result<()> {
    let flags = if cloexec {
        FdFlag::FD_CLOEXEC
    } else {
        FdFlag::empty()
    };
    fcntl(fd, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Numbers that [`take_inherited_fd`] has given out.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes over the descriptor with the number `number` (3 or more) that the parent process left
/// open for us, and makes it close-on-exec.
///
/// `None` when there is no such descriptor, when it is close-on-exec, or when it was taken
/// before. That is what makes the function safe: an inherited descriptor is one that survived
/// execve, hence not close-on-exec, while everything that this project and Rust's standard
/// library open is, so no other `OwnedFd` can own it; and each number is taken once, so no two
/// can come from here. Call it first of all in `main`: code from other sources may open
/// descriptors without close-on-exec.
pub fn take_inherited_fd(number: RawFd) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    let mut taken = TAKEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains(&number) {
        return None;
    }
    // SAFETY: the borrow is only used to ask whether the number is open; fcntl and fstat answer
    // EBADF otherwise.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    if is_cloexec(probe).ok()? || nix::sys::stat::fstat(probe).is_err() {
        return None;
    }
    set_cloexec(probe, true).ok()?;
    taken.insert(number);
    // SAFETY: the descriptor is open, and nobody else in this process owns it, as told above.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn an_inherited_descriptor_is_taken_once() {
        let (reader, writer) = crate::pipe::pipe().unwrap();
        // Far away from the numbers that other tests of this process get and close.
        let number = dup_cloexec_from(&writer, 700).unwrap().into_raw_fd();
        drop(writer);
        assert!(
            take_inherited_fd(number).is_none(),
            "close-on-exec, so not inherited"
        );
        // SAFETY: the number is open, and its owner was dissolved above.
        set_cloexec(unsafe { BorrowedFd::borrow_raw(number) }, false).unwrap();
        let taken = take_inherited_fd(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(is_cloexec(&taken).unwrap());
        assert!(take_inherited_fd(number).is_none());
        std::fs::File::from(taken).write_all(b"z").unwrap();
        let mut text = String::new();
        std::fs::File::from(reader)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "z");
        for number in [-1, 0, 2, 999] {
            assert!(take_inherited_fd(number).is_none());
        }
    }

    #[test]
    fn the_oom_score_is_written_and_read() {
        let own = pid();
        let before = oom_score_adj(own).unwrap();
        // Raising is always allowed.
        set_oom_score_adj(own, (before + 1).min(1000)).unwrap();
        assert_eq!(oom_score_adj(own).unwrap(), (before + 1).min(1000));
        let error = set_oom_score_adj(i32::MAX, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/proc/2147483647/oom_score_adj"));
    }

    #[test]
    fn the_name_is_seen_in_proc() {
        let name = std::thread::spawn(|| {
            set_name("containerd-shim-runc-v2").unwrap();
            std::fs::read_to_string("/proc/thread-self/comm").unwrap()
        });
        assert_eq!(name.join().unwrap(), "containerd-shim\n");
    }

    #[test]
    fn the_allocator_accepts_its_settings() {
        arena_limit();
        trim_heap();
    }

    #[test]
    fn core_scheduling_is_made_or_refused_cleanly() {
        // The test process stays in its group, which changes nothing but where it may run.
        match share_core_scheduling_group() {
            Ok(()) => {}
            Err(error) => assert!(
                matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::ENODEV | libc::EPERM)
                ),
                "{error}"
            ),
        }
    }
}
