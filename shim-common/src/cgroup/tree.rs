//! Walking a cgroup and its descendants, and removing them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files;

/// Calls `look` for `dir` and every cgroup below it, parents first. Cgroups that go away meanwhile
/// are passed over.
///
/// # Errors
/// `NotFound` when `dir` itself is not there; what `look` returns.
pub(super) fn visit(dir: &Path, look: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        let result = look(&at).and_then(|()| children(&at, &mut todo));
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound && at != dir => {}
            other => other?,
        }
    }
    Ok(())
}

/// Appends the cgroups directly below `dir`. A directory in a cgroup file system is a cgroup, and
/// there are no links in it.
fn children(dir: &Path, to: &mut Vec<PathBuf>) -> io::Result<()> {
    let context = |error: io::Error| files::with_path(dir, &error);
    for entry in fs::read_dir(dir).map_err(context)? {
        let entry = entry.map_err(context)?;
        if entry.file_type().map_err(context)?.is_dir() {
            to.push(entry.path());
        }
    }
    Ok(())
}

/// For all files of `dir` called `PREFIX x SUFFIX`, the x, sorted. A folder that is gone has none.
pub(super) fn file_names_between(
    dir: &Path,
    prefix: &str,
    suffix: &str,
) -> io::Result<Vec<String>> {
    let list = fs::read_dir(dir).map_err(|error| files::with_path(dir, &error));
    let Some(list) = files::optional(list)? else {
        return Ok(Vec::new());
    };
    let mut found: Vec<String> = list
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name();
            let middle = name.to_str()?.strip_prefix(prefix)?.strip_suffix(suffix)?;
            Some(middle.to_owned())
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Removes `dir` and the cgroups below it, deepest first. What is gone already is no error. The
/// kernel answers EBUSY for a short while after the last process died; that is retried until
/// `deadline`.
///
/// # Errors
/// What the kernel said last, with the path of the cgroup that stayed.
pub(super) fn remove(dir: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        let Err((path, error)) = remove_once(dir) else {
            return Ok(());
        };
        let busy = matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY));
        if !busy || Instant::now() + pause > deadline {
            return Err(files::with_path(&path, &error));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "v1 has no notice of a cgroup becoming removable; bounded, in a helper thread"
        )]
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn remove_once(dir: &Path) -> Result<(), (PathBuf, io::Error)> {
    // Most cgroups have none below them: then one call does it.
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    let mut found = Vec::new();
    let walked = visit(dir, &mut |at| {
        found.push(at.to_owned());
        Ok(())
    });
    match walked {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| (dir.to_owned(), error))?,
    }
    // Parents were found before their children.
    for path in found.into_iter().rev() {
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err((path, error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_is_deepest_first_and_twice_is_fine() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("c");
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::create_dir_all(dir.join("d")).unwrap();
        remove(&dir, Instant::now()).unwrap();
        assert!(!dir.exists());
        remove(&dir, Instant::now()).unwrap();
    }

    #[test]
    fn what_stays_is_named_after_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        // On a plain file system a file in a folder keeps it from being removed.
        fs::write(inner.join("file"), "").unwrap();
        let error = remove(dir.path(), Instant::now() + Duration::from_millis(5)).unwrap_err();
        assert!(error.to_string().contains("inner"), "{error}");
    }

    #[test]
    fn the_middle_of_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "hugetlb.2MB.max",
            "hugetlb.1GB.max",
            "hugetlb.2MB.current",
            "memory.max",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(
            file_names_between(dir.path(), "hugetlb.", ".max").unwrap(),
            ["1GB", "2MB"]
        );
        assert!(
            file_names_between(&dir.path().join("x"), "a", "b")
                .unwrap()
                .is_empty()
        );
    }
}
