//! Extended attributes of a file held by descriptor. `O_PATH` descriptors serve, also those of
//! symlinks and devices: the kernel is asked through the descriptor's name in /proc, which is the
//! object itself wherever its path leads by now.

#![expect(unsafe_code, reason = "nix has no calls for extended attributes")]

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::errno::{check, count};

/// The most that names or a value may take; the kernel's own limit.
const LIMIT: usize = 64 << 10;

/// Sets the attribute `name` (with its class, such as `security.`) to `value`.
pub fn set(file: impl AsFd, name: &OsStr, value: &[u8]) -> io::Result<()> {
    let (path, name) = (proc_path(&file)?, c_name(name)?);
    // SAFETY: both strings end with NUL and `value` has the length that is passed; all live
    // until the call returns, which keeps nothing of them.
    let done = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    check(done).map(drop)
}

/// The value of the attribute `name`, or `None` where there is none or the file system has no
/// attributes of this class.
pub fn get(file: impl AsFd, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let (path, name) = (proc_path(&file)?, c_name(name)?);
    let mut value = vec![0_u8; 256];
    loop {
        // SAFETY: both strings end with NUL, and `value` has room for as many bytes as are asked
        // for; the call keeps nothing of them.
        let got = check(unsafe {
            libc::getxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        });
        match got {
            Ok(length) => {
                value.truncate(count(length));
                return Ok(Some(value));
            }
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) if is_short(&error) && value.len() < LIMIT => value.resize(LIMIT, 0),
            Err(error) => return Err(error),
        }
    }
}

/// The names of all attributes, in the kernel's order; none where the file system has none.
pub fn list(file: impl AsFd) -> io::Result<Vec<OsString>> {
    let path = proc_path(&file)?;
    let mut names = vec![0_u8; 1024];
    loop {
        // SAFETY: the path ends with NUL, and `names` has room for as many bytes as are asked
        // for; the call keeps nothing of them.
        let got = check(unsafe {
            libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len())
        });
        match got {
            Ok(length) => {
                names.truncate(count(length));
                let names = names
                    .split(|byte| *byte == 0)
                    .filter(|name| !name.is_empty());
                return Ok(names
                    .map(|name| OsString::from_vec(name.to_vec()))
                    .collect());
            }
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) if is_short(&error) && names.len() < LIMIT => names.resize(LIMIT, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Whether an error says that the file system has no attributes of this class.
pub fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODATA) || is_unsupported(error)
}

fn is_short(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ERANGE)
}

fn proc_path(file: &impl AsFd) -> io::Result<CString> {
    CString::new(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())).map_err(io::Error::other)
}

fn c_name(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("attribute name with a NUL byte: {name:?}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn attributes_are_set_read_and_listed_through_any_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let long = vec![7; 3000];
        for flags in [0, libc::O_PATH | libc::O_NOFOLLOW] {
            let file = File::options()
                .read(true)
                .custom_flags(flags)
                .open(&path)
                .unwrap();
            if let Err(error) = set(&file, OsStr::new("user.one"), b"1") {
                assert!(is_unsupported(&error), "{error}");
                return;
            }
            set(&file, OsStr::new("user.long"), &long).unwrap();
            assert_eq!(get(&file, OsStr::new("user.one")).unwrap().unwrap(), b"1");
            assert_eq!(get(&file, OsStr::new("user.long")).unwrap().unwrap(), long);
            assert_eq!(get(&file, OsStr::new("user.none")).unwrap(), None);
            let mut names = list(&file).unwrap();
            names.retain(|name| name.as_bytes().starts_with(b"user."));
            names.sort();
            assert_eq!(names, ["user.long", "user.one"]);
        }
    }
}
