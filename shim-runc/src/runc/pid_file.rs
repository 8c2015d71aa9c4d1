//! Pid files, as the runtime writes them into the bundle after `create`, `exec` and `restore`.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The highest pid Linux can hand out (PID_MAX_LIMIT on 64 bit, proc(5)).
const PID_MAX: i32 = 4 * 1024 * 1024;

/// Why a pid file gave no pid; the text names the path.
#[derive(Debug)]
pub enum PidFileError {
    /// The file could not be opened or read.
    Io(PathBuf, std::io::Error),
    /// Its content is no pid a container's process can have.
    Invalid(PathBuf, String),
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to retrieve OCI runtime container pid: ")?;
        match self {
            Self::Io(path, e) => {
                write!(
                    f,
                    "open {}: {}",
                    path.display(),
                    super::error::errno_text(e)
                )
            }
            Self::Invalid(path, content) => {
                write!(f, "{} holds {content:?}, which is no pid", path.display())
            }
        }
    }
}

impl std::error::Error for PidFileError {}

/// Reads the pid in `path`. Reads at most 32 bytes, follows no symbolic link, never blocks on a
/// FIFO, and refuses what can be no container's process: pid 0, 1, the shim itself, a number
/// beyond the kernel's range. Signals and cgroups follow this number.
///
/// # Errors
/// A missing or unreadable file, and content that is no pid.
pub fn read(path: &Path) -> Result<i32, PidFileError> {
    let io = |e| PidFileError::Io(path.to_owned(), e);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(io)?;
    let mut content = Vec::with_capacity(32);
    file.take(32).read_to_end(&mut content).map_err(io)?;
    let text = String::from_utf8_lossy(&content);
    let digits = text.trim_end_matches('\n');
    let own = std::process::id();
    match digits.parse::<i32>() {
        Ok(pid)
            if (2..=PID_MAX).contains(&pid)
                && !digits.starts_with('+')
                && u32::try_from(pid) != Ok(own) =>
        {
            Ok(pid)
        }
        _ => Err(PidFileError::Invalid(path.to_owned(), digits.to_owned())),
    }
}

/// Removes a pid file that an earlier attempt left, so that its number is never taken for the new
/// process's; and what a runtime left that was killed while it wrote one: runc writes `.NAME`, which
/// must not exist, and renames it. A file that is not there is fine.
///
/// # Errors
/// Any other failure of unlink(2).
pub fn remove(path: &Path) -> std::io::Result<()> {
    let mut unfinished = OsString::from(".");
    unfinished.push(path.file_name().unwrap_or_default());
    for path in [path, &path.with_file_name(unfinished)] {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_pid_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init.pid");
        let own = std::process::id().to_string();
        for (content, want) in [
            ("4242", Some(4242)),
            ("4242\n", Some(4242)),
            ("2", Some(2)),
            ("1", None),
            ("0", None),
            ("-1", None),
            ("+77", None),
            ("", None),
            ("12x", None),
            ("4194305", None),
            ("99999999999999999999999999999999999", None),
            (own.as_str(), None),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&path).ok(), want, "{content:?}");
        }
    }

    #[test]
    fn failures_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.pid");
        let text = read(&path).unwrap_err().to_string();
        let want = format!("open {}: no such file or directory", path.display());
        assert!(text.ends_with(&want), "{text}");
        remove(&path).unwrap();

        // What a runc left that was killed in between goes too, and nothing else.
        for name in ["none.pid", ".none.pid", ".other.pid"] {
            std::fs::write(dir.path().join(name), "4242").unwrap();
        }
        remove(&path).unwrap();
        let left = std::fs::read_dir(dir.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".other.pid"]);

        // A link planted where the pid file belongs is not followed.
        let target = dir.path().join("target");
        std::fs::write(&target, "4242").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(read(&path), Err(PidFileError::Io(..))));
    }
}
