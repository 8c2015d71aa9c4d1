//! Pipes and FIFOs: making, opening and sizing them, and moving bytes by splice(2) without
//! copying them through this process.

#![expect(
    unsafe_code,
    reason = "splice without offsets, poll and FIONREAD through libc"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::ptr;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::errno::{c_path, check, context, count, retry};

/// A pipe, both ends close-on-exec and blocking: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Sets or clears O_NONBLOCK. It belongs to the open file description, which duplicates and
/// children share: [`reopen`] a pipe end to have a flag of your own.
pub fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let before = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    let mut after = before;
    after.set(OFlag::O_NONBLOCK, nonblocking);
    if after != before {
        fcntl(&fd, FcntlArg::F_SETFL(after))?;
    }
    Ok(())
}

/// Sets the pipe's capacity in bytes (rounded up to a power of two of pages by the kernel) and
/// returns what it became. `PermissionDenied` past /proc/sys/fs/pipe-max-size or the user's
/// page quota; `ResourceBusy` when more than that is in the pipe now.
pub fn set_size(fd: impl AsFd, size: usize) -> io::Result<usize> {
    let size = i32::try_from(size).unwrap_or(i32::MAX);
    Ok(usize::try_from(fcntl(fd, FcntlArg::F_SETPIPE_SZ(size))?).unwrap_or(0))
}

/// The pipe's capacity in bytes.
pub fn pipe_capacity(fd: impl AsFd) -> io::Result<usize> {
    Ok(usize::try_from(fcntl(fd, FcntlArg::F_GETPIPE_SZ)?).unwrap_or(0))
}

/// How many bytes wait in the pipe (FIONREAD); either end may be asked.
pub fn unread_bytes(fd: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD stores an int.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Moves up to `length` bytes, one of the two being a pipe, without blocking, whatever flags the
/// pipes have. (Another kind of file blocks as its own flags say.)
///
/// `Ok(0)` is the end of `from`: nothing in it and no writer. `WouldBlock` when `from` is empty
/// or `to` is full, and `BrokenPipe` when `to` has no reader (SIGPIPE must be ignored).
/// `InvalidInput` when a file does not support splice, for example one opened to append.
pub fn splice(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    splice_flags(
        from.as_fd(),
        to.as_fd(),
        length,
        libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE,
    )
}

fn splice_flags(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    length: usize,
    flags: libc::c_uint,
) -> io::Result<usize> {
    // SAFETY: null offsets mean the files' own positions.
    let moved = retry(|| unsafe {
        libc::splice(
            from.as_raw_fd(),
            ptr::null_mut(),
            to.as_raw_fd(),
            ptr::null_mut(),
            length,
            flags,
        )
    })?;
    Ok(count(moved))
}

/// Waits until one of `events` (`POLLIN`, `POLLOUT`; `POLLERR` and `POLLHUP` always) holds for
/// `fd`, at most `timeout_ms` milliseconds (0 only asks, negative waits for ever), and returns
/// those that do; 0 when none. An interrupted wait returns 0.
pub fn poll_fd(fd: impl AsFd, events: i16, timeout_ms: i32) -> io::Result<i16> {
    let mut entry = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: one entry, which outlives the call.
    match check(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) }) {
        Ok(_) => Ok(entry.revents),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// Opens the FIFO at `path`, close-on-exec and nonblocking, so that the call never waits for the
/// other side. `flags` is `O_RDONLY`, `O_WRONLY` (ENXIO while it has no reader) or `O_RDWR`
/// (always succeeds, and keeps the FIFO alive while peers come and go). `InvalidInput` when the
/// path leads to something else: opening a device or a socket may have effects, so the type is
/// looked at before (through O_PATH) and the very same file is then opened.
pub fn open_fifo(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let told = |error: &io::Error| context(error, format_args!("open FIFO {}", path.display()));
    let handle = open_raw(path, libc::O_PATH).map_err(|error| told(&error))?;
    let kind = std::fs::File::from(handle.try_clone()?)
        .metadata()?
        .file_type();
    if !kind.is_fifo() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a FIFO", path.display()),
        ));
    }
    reopen(&handle, flags | libc::O_NONBLOCK)
}

/// Opens what `fd` refers to once more, with a file description of its own and its own `flags`
/// (close-on-exec is added), through /proc/self/fd. An end of a pipe can so become nonblocking
/// for us alone, and the other end can be had as well.
pub fn reopen(fd: impl AsFd, flags: i32) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    open_raw(Path::new(&path), flags)
}

fn open_raw(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: a C string that outlives the call; no O_CREAT, hence no mode.
    let fd: RawFd = retry(|| unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives what `fd` refers to (a pipe of the container's) to another user.
pub fn chown_fd(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    nix::unistd::fchown(fd, Some(uid.into()), Some(gid.into()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn splice_tells_empty_full_ended_and_broken_apart() {
        crate::signal::ignore_sigpipe().unwrap();
        let (from, from_writer) = pipe().unwrap();
        let (to_reader, to) = pipe().unwrap();
        let capacity = pipe_capacity(&to).unwrap();
        // Empty, and blocking by its flags: splice does not wait.
        assert_eq!(
            splice(&from, &to, 100).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let mut from_writer = File::from(from_writer);
        from_writer.write_all(b"abc").unwrap();
        assert_eq!(unread_bytes(&from).unwrap(), 3);
        assert_eq!(splice(&from, &to, 100).unwrap(), 3);
        assert_eq!(
            (unread_bytes(&from).unwrap(), unread_bytes(&to).unwrap()),
            (0, 3)
        );
        let mut read = [0; 3];
        File::from(to_reader.try_clone().unwrap())
            .read_exact(&mut read)
            .unwrap();
        assert_eq!(&read, b"abc");
        // Full.
        let mut to_file = File::from(to.try_clone().unwrap());
        to_file.write_all(&vec![0; capacity]).unwrap();
        from_writer.write_all(b"x").unwrap();
        assert_eq!(
            splice(&from, &to, 100).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        // No reader.
        drop(to_reader);
        assert_eq!(
            splice(&from, &to, 100).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        // The end.
        let (_to_reader, to) = pipe().unwrap();
        drop(from_writer);
        assert_eq!(splice(&from, &to, 100).unwrap(), 1);
        assert_eq!(splice(&from, &to, 100).unwrap(), 0);
    }

    #[test]
    fn sizes_are_set_and_read() {
        let (reader, writer) = pipe().unwrap();
        assert!(crate::process::is_cloexec(&reader).unwrap());
        assert_eq!(set_size(&writer, 4096).unwrap(), 4096);
        assert_eq!(pipe_capacity(&reader).unwrap(), 4096);
    }

    #[test]
    fn a_fifo_opens_without_a_peer_and_nothing_else_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(
            open_fifo(&path, libc::O_WRONLY).unwrap_err().raw_os_error(),
            Some(libc::ENXIO)
        );
        let both = open_fifo(&path, libc::O_RDWR).unwrap();
        assert!(crate::process::is_cloexec(&both).unwrap());
        let writer = open_fifo(&path, libc::O_WRONLY).unwrap();
        File::from(writer).write_all(b"y").unwrap();
        assert_ne!(poll_fd(&both, libc::POLLIN, 0).unwrap() & libc::POLLIN, 0);
        let mut read = [0; 8];
        let mut both = File::from(both);
        assert_eq!(both.read(&mut read).unwrap(), 1);
        assert_eq!(
            both.read(&mut read).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );

        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for other in [file.as_path(), folder.path(), Path::new("/dev/null")] {
            let error = open_fifo(other, libc::O_RDWR).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        let error = open_fifo(&folder.path().join("none"), libc::O_RDWR).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("none"), "{error}");
    }

    #[test]
    fn a_reopened_end_has_flags_of_its_own() {
        let (reader, writer) = pipe().unwrap();
        let own = reopen(&reader, libc::O_RDONLY | libc::O_NONBLOCK).unwrap();
        let mut own = File::from(own);
        assert_eq!(
            own.read(&mut [0; 1]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let flags = fcntl(&reader, FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        set_nonblocking(&reader, true).unwrap();
        assert_ne!(
            fcntl(&reader, FcntlArg::F_GETFL).unwrap() & libc::O_NONBLOCK,
            0
        );
        set_nonblocking(&reader, false).unwrap();
        drop((reader, writer));
        assert_eq!(own.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_pipe_gets_another_owner() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (reader, writer) = pipe().unwrap();
        chown_fd(&writer, 1234, 4321).unwrap();
        let metadata = File::from(reader).metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
    }
}
