//! The option `shim_cgroup`: the shim itself goes into a cgroup, on v2 below the one mount, on v1
//! in every hierarchy.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::cgroup::Version;

/// Where cgroups are mounted, whatever their version (cgroups(7)).
pub const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Puts the process `pid` into the cgroup `path`, which is made where it does not exist.
///
/// # Errors
/// A path with `..` or without a name in it; failures of the system calls, naming the file.
pub fn add(path: &str, pid: i32) -> io::Result<()> {
    let below = below_root(path).ok_or_else(|| {
        let text = format!("{path:?} is not the path of a cgroup below the root");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    for root in hierarchies()? {
        let dir = root.join(&below);
        make(&root, &below).map_err(|error| with_path(&dir, &error))?;
        let file = dir.join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(|error| with_path(&file, &error))?;
    }
    Ok(())
}

/// A cgroup's path relative to the root; `None` if it is the root itself or leads out of it.
pub fn below_root(path: &str) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!below.as_os_str().is_empty()).then_some(below)
}

/// The roots of the hierarchies that have controllers: the one of v2 where `/sys/fs/cgroup` itself
/// is it, else the mounts of v1 below (a hybrid machine counts as v1).
///
/// # Errors
/// Failures of reading the mount table; no hierarchy at all.
pub fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let root = Path::new(MOUNT_POINT);
    if Version::of_machine() == Version::V2 {
        return Ok(vec![root.to_owned()]);
    }
    let table = "/proc/self/mountinfo";
    let text = fs::read_to_string(table).map_err(|error| with_path(Path::new(table), &error))?;
    let found = v1_mounts(&text);
    if found.is_empty() {
        let text = format!("no cgroup is mounted below {MOUNT_POINT}");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(found)
}

/// The mount points of cgroup v1 in a mount table (proc_pid_mountinfo(5)), each once.
fn v1_mounts(table: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        if right.starts_with("cgroup ") && point.starts_with("/sys/fs/cgroup/") {
            let point = PathBuf::from(point);
            if !found.contains(&point) {
                found.push(point);
            }
        }
    }
    found
}

/// Makes the cgroup `below` in the hierarchy at `root`. In a new v1 cpuset no process can live
/// until it has cpus and memory nodes; it gets its parent's.
fn make(root: &Path, below: &Path) -> io::Result<()> {
    let mut dir = root.to_owned();
    for component in below.components() {
        let parent = dir.clone();
        dir.push(component);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        for name in ["cpuset.cpus", "cpuset.mems"] {
            // Absent but in a cpuset; on v2 an empty file means the parent's.
            let empty = fs::read_to_string(dir.join(name)).is_ok_and(|text| text.trim().is_empty());
            if empty && root != Path::new(MOUNT_POINT) {
                fs::write(dir.join(name), fs::read_to_string(parent.join(name))?)?;
            }
        }
    }
    Ok(())
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_root_are_cgroups() {
        assert_eq!(below_root("/a/b"), Some(PathBuf::from("a/b")));
        assert_eq!(below_root("a//./b/"), Some(PathBuf::from("a/b")));
        for path in ["", "/", ".", "..", "/a/../..", "/../a"] {
            assert_eq!(below_root(path), None, "{path}");
            if !path.is_empty() {
                assert_eq!(
                    add(path, 1).unwrap_err().kind(),
                    io::ErrorKind::InvalidInput
                );
            }
        }
    }

    #[test]
    fn every_v1_hierarchy_is_found_once() {
        let table = "\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            42 31 0:39 / /mnt/cgroup rw - cgroup cgroup rw,pids\n\
            31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n";
        let found = v1_mounts(table);
        assert_eq!(
            found,
            [
                Path::new("/sys/fs/cgroup/cpu,cpuacct"),
                Path::new("/sys/fs/cgroup/systemd")
            ]
        );
    }
}
