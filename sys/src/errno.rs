//! How the C convention "-1 and errno" becomes `io::Result`, in one place, with and without
//! the retry that an interrupted call needs.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The result types that C functions and raw system calls use.
pub(crate) trait Failed: Copy {
    /// Whether the value means "see errno".
    fn failed(self) -> bool;
}

impl Failed for i32 {
    fn failed(self) -> bool {
        self == -1
    }
}

impl Failed for i64 {
    fn failed(self) -> bool {
        self == -1
    }
}

impl Failed for isize {
    fn failed(self) -> bool {
        self == -1
    }
}

/// Turns -1 into the error that errno holds; every other value passes.
pub(crate) fn check<T: Failed>(value: T) -> io::Result<T> {
    if value.failed() {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// Runs `call` until it ends with anything but EINTR.
pub(crate) fn retry<T: Failed>(mut call: impl FnMut() -> T) -> io::Result<T> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Adds what was attempted to an error and keeps its kind.
pub(crate) fn context(error: &io::Error, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// The path as a C string; a path with a NUL byte is `InvalidInput`.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("path with a NUL byte: {path:?}"),
        )
    })
}

/// A count that a successful system call returned.
pub(crate) fn count(value: isize) -> usize {
    usize::try_from(value).unwrap_or(0)
}
