//! Facts of the machine, read where the kernel tells them: processes, mounts, cgroups, descriptors.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// All pids of the machine.
pub fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// The argument vector of a process; empty for a zombie or a process that is gone.
pub fn cmdline(pid: i32) -> Vec<String> {
    fs::read(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .split(|b| *b == 0)
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .filter(|arg| !arg.is_empty())
        .collect()
}

/// The command name, at most 15 characters.
pub fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

/// One field of /proc/PID/status.
pub fn status_field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|l| Some(l.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

/// Whether a process runs; a zombie does not, and one of ours is collected on the way.
pub fn alive(pid: i32) -> bool {
    // Orphans of a shim become children of the harness, which is a subreaper: nobody else would
    // collect them. An error says that it is somebody else's child.
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    status_field(pid, "State").is_some_and(|s| !s.starts_with('Z') && !s.starts_with('X'))
}

/// Whether a process is a zombie that nobody has collected.
pub fn zombie(pid: i32) -> bool {
    status_field(pid, "State").is_some_and(|s| s.starts_with('Z'))
}

/// The parent of a process.
pub fn parent(pid: i32) -> Option<i32> {
    status_field(pid, "PPid")?.parse().ok()
}

/// The children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    pids()
        .into_iter()
        .filter(|p| parent(*p) == Some(pid))
        .collect()
}

/// Sends SIGKILL to one process by its pid.
pub fn kill_hard(pid: i32) {
    // Gone already is as good.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Sends a signal to one process by its pid.
pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("signal a process that the test started");
}

/// The targets of a process's open descriptors.
pub fn descriptors(pid: i32) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let mut list: Vec<_> = entries
        .flatten()
        .filter_map(|e| {
            let target = fs::read_link(e.path()).ok()?;
            let number = e.file_name().to_str()?.parse().ok()?;
            Some((number, target.display().to_string()))
        })
        .collect();
    list.sort_unstable();
    list
}

/// The number of threads of a process.
pub fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Mount points at or below a folder, in the order of mounting.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(|p| PathBuf::from(p.replace("\\040", " ")))
        .filter(|p| p.starts_with(dir))
        .collect()
}

/// The folders where each cgroup hierarchy is mounted.
pub fn cgroup_hierarchies() -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter(|l| l.contains(" - cgroup"))
        .filter_map(|l| Some(PathBuf::from(l.split(' ').nth(4)?)))
        .collect()
}

/// The existing cgroup folders at and below `path` (as in `cgroupsPath`), parents first.
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    fn descend(dir: PathBuf, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(&dir) else {
            return;
        };
        found.push(dir);
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                descend(entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    for hierarchy in cgroup_hierarchies() {
        descend(hierarchy.join(path.trim_start_matches('/')), &mut found);
    }
    found
}

/// Makes the cgroup `path` in every hierarchy, ready to take processes.
pub fn make_cgroup(path: &str) {
    for hierarchy in cgroup_hierarchies() {
        let mut dir = hierarchy.clone();
        for part in path.trim_start_matches('/').split('/') {
            let parent = dir.clone();
            dir.push(part);
            // On v2 the one above says what is counted below; elsewhere there is no such file.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
            fs::create_dir_all(&dir).expect("make a cgroup");
            // A cpuset of v1 takes no process before it has processors and memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(parent.join(file)) {
                    let _ = fs::write(dir.join(file), value);
                }
            }
        }
    }
}

/// Removes the cgroup `path` in every hierarchy where nothing is below it.
///
/// Runtimes remove a container's cgroup but leave the parents they made on the way.
pub fn remove_empty_cgroup(path: &str) {
    for hierarchy in cgroup_hierarchies() {
        // One that still has children or processes refuses, and is then found by the leak check.
        let _ = fs::remove_dir(hierarchy.join(path.trim_start_matches('/')));
    }
}

/// The processes inside the cgroups at and below `path`.
pub fn cgroup_members(path: &str) -> Vec<i32> {
    let mut members: Vec<i32> = cgroups(path)
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|l| l.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    members.sort_unstable();
    members.dedup();
    members
}

/// The paths below `dir` for which `wanted` holds, symlinks not followed, mounts not entered.
pub fn files_below(dir: &Path, wanted: &dyn Fn(&fs::FileType) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if wanted(&kind) {
            found.push(entry.path());
        }
        if kind.is_dir() && entry.file_name() != "rootfs" {
            found.extend(files_below(&entry.path(), wanted));
        }
    }
    found
}
