//! Switching controllers on for a container's cgroup, as the Go shims do at Create: statistics and
//! OOM counters exist only for controllers that every ancestor passes on.

use std::path::Path;

use super::files;

const CONTROLLERS: &str = "cgroup.controllers";
const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// Enables every controller that the root has, in each cgroup from `root` down to the parent of
/// `dir`.
///
/// # Errors
/// Only what stands in the way at the parent itself: an ancestor that refuses may have them
/// already. EPERM and EACCES (rootless), EBUSY (the cgroup has processes of its own, or a v1 mount
/// holds the controller), ENOENT (the controller is not offered there) and EOPNOTSUPP (a threaded
/// cgroup) are in the nature of things and no errors.
pub(in super::super) fn enable(root: &Path, dir: &Path) -> std::io::Result<()> {
    let offered = files::read(root, CONTROLLERS)?;
    let Ok(below) = dir.strip_prefix(root) else {
        return Ok(());
    };
    let depth = below.components().count();
    let mut last = Ok(());
    let mut at = root.to_owned();
    for name in below.components().take(depth) {
        last = enable_at(&at, &offered);
        at.push(name);
    }
    last
}

fn enable_at(dir: &Path, offered: &str) -> std::io::Result<()> {
    let enabled = files::read(dir, SUBTREE_CONTROL)?;
    let missing: Vec<&str> = offered
        .split_ascii_whitespace()
        .filter(|name| !enabled.split_ascii_whitespace().any(|other| other == *name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
    if files::write_raw(dir, SUBTREE_CONTROL, &all.join(" ")).is_ok() {
        return Ok(());
    }
    // The kernel takes the whole line or nothing: one that it refuses must not cost the others.
    let mut result = Ok(());
    for one in &all {
        if let Err(error) = files::write_raw(dir, SUBTREE_CONTROL, one)
            && !is_benign(&error)
        {
            result = Err(files::with_path(&dir.join(SUBTREE_CONTROL), &error));
        }
    }
    result
}

fn is_benign(error: &std::io::Error) -> bool {
    let benign = [
        libc::EPERM,
        libc::EACCES,
        libc::EROFS,
        libc::EBUSY,
        libc::ENOENT,
        libc::EOPNOTSUPP,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| benign.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_ancestor_and_not_the_cgroup_itself() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("pods/c");
        fs::create_dir_all(&leaf).unwrap();
        fs::write(root.path().join(CONTROLLERS), "cpu memory pids\n").unwrap();
        for dir in [root.path(), &root.path().join("pods"), &leaf] {
            fs::write(dir.join(SUBTREE_CONTROL), "").unwrap();
        }
        fs::write(root.path().join(SUBTREE_CONTROL), "memory").unwrap();
        enable(root.path(), &leaf).unwrap();
        let wrote = |dir: &Path| fs::read_to_string(dir.join(SUBTREE_CONTROL)).unwrap();
        assert!(wrote(root.path()).starts_with("+cpu +pids"));
        assert_eq!(wrote(&root.path().join("pods")), "+cpu +memory +pids");
        assert_eq!(wrote(&leaf), "");
    }

    #[test]
    fn a_parent_that_is_gone_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(CONTROLLERS), "cpu\n").unwrap();
        fs::write(root.path().join(SUBTREE_CONTROL), "cpu\n").unwrap();
        let error = enable(root.path(), &root.path().join("pods/c")).unwrap_err();
        assert!(
            error.to_string().contains("pods/cgroup.subtree_control"),
            "{error}"
        );
    }
}
