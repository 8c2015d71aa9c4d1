//! Files that live in memory only: runc's log, pid and options without a file on disk.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// An empty close-on-exec memory file; `name` is seen in /proc/pid/fd only.
pub fn empty(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?)
}

/// A memory file with `contents`, its offset at 0.
pub fn with_contents(name: &str, contents: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(empty(name)?);
    file.write_all(contents)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// At most `limit` bytes from the start of the file, whatever the offset is, which stays. What
/// lies beyond the limit is not read: a child may write what it likes.
pub fn read_all(fd: BorrowedFd<'_>, limit: usize) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let file = File::from(fd.try_clone_to_owned()?);
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut contents = vec![0; size.min(limit)];
    let mut filled = 0;
    while let Some(rest) = contents.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    contents.truncate(filled);
    Ok(contents)
}

/// A path by which a child (or anyone with our rights) may open what `fd` refers to, as long as
/// this process keeps it open. It is a fresh open: the offset is not shared.
pub fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        fd.as_raw_fd()
    ))
}

/// Everything a reader gives until its end, at most `limit` bytes.
pub fn read_limited(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    reader.take(limit as u64).read_to_end(&mut contents)?;
    Ok(contents)
}

/// Empties the file and puts its offset back to 0, for the next child.
pub fn clear(fd: &impl AsFd) -> io::Result<()> {
    nix::unistd::ftruncate(fd, 0)?;
    nix::unistd::lseek(fd, 0, nix::unistd::Whence::SeekSet)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_readable_from_the_start_and_by_path() {
        let fd = with_contents("wherry-test", b"hello").unwrap();
        let mut text = String::new();
        File::from(fd.try_clone().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello");
        // The offset is at the end now; read_all does not care.
        assert_eq!(read_all(fd.as_fd(), 100).unwrap(), b"hello");
        assert_eq!(read_all(fd.as_fd(), 2).unwrap(), b"he");
        assert_eq!(std::fs::read(proc_path(fd.as_fd())).unwrap(), b"hello");
        clear(&fd).unwrap();
        assert_eq!(read_all(fd.as_fd(), 100).unwrap(), b"");
    }

    #[test]
    fn a_writer_by_path_is_seen() {
        let fd = empty("wherry-test").unwrap();
        std::fs::write(proc_path(fd.as_fd()), b"4711").unwrap();
        assert_eq!(read_all(fd.as_fd(), 100).unwrap(), b"4711");
    }
}
