//! Reads /proc/thread-self/mountinfo (see proc_pid_mountinfo(5)): which mount stands where and on
//! which other mount. The thread's own table, because a helper thread may have its own namespace.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) parent: u64,
    pub(super) path: PathBuf,
}

/// Every mount at or below `path`, which must be absolute and free of symlinks, in table order.
pub(super) fn below(path: &Path) -> io::Result<Vec<Entry>> {
    let table = std::fs::read("/proc/thread-self/mountinfo")?;
    Ok(table
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .filter(|entry| entry.path.starts_with(path))
        .collect())
}

/// Id, parent's id and mount point are fields 1, 2 and 5; nothing after them matters here.
fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let path = fields.nth(2)?;
    Some(Entry {
        id,
        parent,
        path: PathBuf::from(OsString::from_vec(decode(path))),
    })
}

/// Undoes the kernel's octal escapes (space, tab, newline, backslash and `#`).
fn decode(field: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            decoded.push(byte);
            rest = &tail[3..];
        } else {
            decoded.push(first);
            rest = tail;
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_line_gives_ids_and_the_decoded_mount_point() {
        let line =
            br"41 31 0:38 / /a\040b\012c\134d\011e rw,relatime shared:7 - cgroup2 cgroup2 rw";
        let entry = parse_line(line).unwrap();
        assert_eq!((entry.id, entry.parent), (41, 31));
        assert_eq!(entry.path.as_os_str().as_bytes(), b"/a b\nc\\d\te");
    }

    #[test]
    fn lines_that_are_cut_off_are_skipped_and_odd_escapes_kept() {
        assert_eq!(parse_line(b""), None);
        assert_eq!(parse_line(b"41 31 0:38 /"), None);
        assert_eq!(parse_line(b"x 31 0:38 / /a rw"), None);
        assert_eq!(decode(br"\9 \04"), br"\9 \04");
    }

    #[test]
    fn below_goes_by_whole_components() {
        assert!(
            below(Path::new("/"))
                .unwrap()
                .iter()
                .any(|entry| entry.path == Path::new("/proc"))
        );
        assert!(below(Path::new("/pro")).unwrap().is_empty());
    }
}
