//! Reading the small text files of a cgroup: one number, `key value` lines, and the ways in which a
//! file can be missing.
//!
//! Formats: the kernel's `Documentation/admin-guide/cgroup-v2.rst` (section "Core Interface Files")
//! and `Documentation/admin-guide/cgroup-v1/`.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// What cgroup v2 (and the `pids` controller of v1) writes for "no limit".
pub(super) const NO_LIMIT: &str = "max";

/// Gives `error` the path it is about. A file of a cgroup that was removed after it was opened
/// reads as ENODEV: for the caller that is the same as a file that was not there to open, so both
/// come out as `NotFound`.
pub(super) fn with_path(path: &Path, error: &io::Error) -> io::Error {
    let kind = match error.raw_os_error() {
        Some(libc::ENODEV) => ErrorKind::NotFound,
        // A kernel that has the file and refuses to answer (PSI switched off at boot) is a kernel
        // without the feature.
        Some(libc::EOPNOTSUPP) => ErrorKind::Unsupported,
        _ => error.kind(),
    };
    io::Error::new(kind, format!("{}: {error}", path.display()))
}

/// The whole text of `dir/name`.
///
/// # Errors
/// `NotFound` when the file or its cgroup is gone, `Unsupported` when the kernel does not fill it;
/// every error names the path.
pub(super) fn read(dir: &Path, name: &str) -> io::Result<String> {
    let path = dir.join(name);
    fs::read_to_string(&path).map_err(|error| with_path(&path, &error))
}

/// Writes `text` to `dir/name` in one `write`, which is how the kernel wants a control file
/// written.
///
/// # Errors
/// As [`read`], and whatever the control refuses; every error names the path. The kernel's errno is
/// kept where the caller has to look at it: see [`write_raw`].
pub(super) fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    write_raw(dir, name, text).map_err(|error| with_path(&dir.join(name), &error))
}

/// [`write`] with the plain error of the kernel, for callers that decide by errno.
pub(super) fn write_raw(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    // No O_CREAT: a missing control file is an error, also in a fixture folder.
    let mut file = fs::OpenOptions::new().write(true).open(dir.join(name))?;
    file.write_all(text.as_bytes())
}

/// Turns "this kernel or this cgroup has no such file" into `None`.
pub(super) fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The number in `dir/name`; `no_limit` stands for `max`. A missing file is 0, as in the Go shims.
pub(super) fn number(dir: &Path, name: &str, no_limit: u64) -> io::Result<u64> {
    let Some(text) = optional(read(dir, name))? else {
        return Ok(0);
    };
    parse(&text, no_limit).ok_or_else(|| {
        let path = dir.join(name);
        let text = text.trim();
        io::Error::new(
            ErrorKind::InvalidData,
            format!("{}: not a number: {text:?}", path.display()),
        )
    })
}

/// One number as the kernel prints it: `no_limit` for `max`, and 0 for a negative number (some v1
/// counters go below zero for a moment).
pub(super) fn parse(text: &str, no_limit: u64) -> Option<u64> {
    let text = text.trim();
    if text == NO_LIMIT {
        return Some(no_limit);
    }
    match text.parse::<u64>() {
        Ok(value) => Some(value),
        Err(_) => text.strip_prefix('-')?.parse::<u64>().ok().map(|_| 0),
    }
}

/// The `key value` lines of a flat-keyed file. A line of another form is passed over: a kernel may
/// add what we do not know.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let key = words.next()?;
        let value = parse(words.next()?, u64::MAX)?;
        words.next().is_none().then_some((key, value))
    })
}

/// The value of `key` in a flat-keyed text.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    pairs(text).find_map(|(name, value)| (name == key).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_the_kernel_prints_them() {
        assert_eq!(parse("42\n", 7), Some(42));
        assert_eq!(parse("max\n", 7), Some(7));
        assert_eq!(parse("-1\n", 7), Some(0));
        assert_eq!(parse("", 7), None);
        assert_eq!(parse("12x", 7), None);
        assert_eq!(parse("18446744073709551615", 7), Some(u64::MAX));
    }

    #[test]
    fn lines_of_another_form_are_passed_over() {
        let text = "a 1\nodd\nb 2 3\n\nc max\n";
        assert_eq!(pairs(text).collect::<Vec<_>>(), [("a", 1), ("c", u64::MAX)]);
        assert_eq!(value_of(text, "c"), Some(u64::MAX));
        assert_eq!(value_of(text, "b"), None);
    }

    #[test]
    fn a_missing_file_is_not_an_error_and_a_broken_one_names_its_path() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(number(dir.path(), "absent", 0).unwrap(), 0);
        fs::write(dir.path().join("odd"), "text").unwrap();
        let error = number(dir.path(), "odd", 0).unwrap_err();
        assert!(error.to_string().contains("odd"), "{error}");
    }
}
