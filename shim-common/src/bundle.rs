//! Reading and writing the small files of a bundle.
//!
//! The bundle is a folder that containerd (root) made and that no container sees, except for
//! `rootfs` below it; names come from [`task_api::bundle`].

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The most that is read from a file of a bundle, in bytes. They hold a line; options.json a few.
const LIMIT: usize = 1024 * 1024;

/// The text of `dir/name` without surrounding white space; `None` when there is no such file.
///
/// # Errors
/// Failures of reading, naming the path.
pub fn read(dir: &Path, name: &str) -> io::Result<Option<String>> {
    let path = dir.join(name);
    let read = || {
        // Nonblocking: a FIFO in the place of the file must not hold the reader.
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)?;
        let bytes = sys::memfd::read_limited(file, LIMIT)?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    };
    match read() {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(with_path("read", &path, &error)),
    }
}

/// The pid in `dir/name`; `None` when there is no such file or no pid in it.
///
/// # Errors
/// Failures of reading, naming the path.
pub fn read_pid(dir: &Path, name: &str) -> io::Result<Option<i32>> {
    let text = read(dir, name)?;
    Ok(text
        .and_then(|text| text.parse().ok())
        .filter(|pid| *pid > 0))
}

/// Writes `dir/name`, so that a reader sees the old text or the whole new one, never a part: a
/// daemon that restarts reads these files.
///
/// # Errors
/// Failures of writing, naming the path; nothing is left of the new text then.
pub fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = dir.join(name);
    let hidden = dir.join(format!(".{name}"));
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644);
        // The file is new or left from a writer that died; a link there is none of ours.
        let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&hidden)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&hidden, &path)
    };
    write().map_err(|error| {
        // It may not exist; that the write failed is what counts.
        let _ = std::fs::remove_file(&hidden);
        with_path("write", &path, &error)
    })
}

fn with_path(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), "address").unwrap(), None);
        write(dir.path(), "address", "unix:///a").unwrap();
        write(dir.path(), "address", "unix:///b").unwrap();
        assert_eq!(
            read(dir.path(), "address").unwrap().as_deref(),
            Some("unix:///b")
        );
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_pid_is_a_positive_number() {
        let dir = tempfile::tempdir().unwrap();
        for (text, pid) in [
            ("42", Some(42)),
            ("42\n", Some(42)),
            ("", None),
            ("-1", None),
        ] {
            std::fs::write(dir.path().join("init.pid"), text).unwrap();
            assert_eq!(read_pid(dir.path(), "init.pid").unwrap(), pid, "{text:?}");
        }
    }

    #[test]
    fn a_failure_names_the_path() {
        let error = write(Path::new("/nonexistent"), "address", "x")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("write /nonexistent/address: "), "{error}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("runtime")).unwrap();
        let error = read(dir.path(), "runtime").unwrap_err().to_string();
        assert!(error.contains("/runtime: "), "{error}");
    }
}
