//! Tests of whole cgroups: v2 from folders of files, killing and OOM on this machine's kernel, and
//! v1 figures beside those of the Go shim.

mod against_go;
mod folder_v2;
mod live;

use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup of this machine (v1: one in every hierarchy), removed at the end.
struct LiveCgroup {
    cgroup: super::Cgroup,
}

impl LiveCgroup {
    /// A new one; `None`, with a note, where we may not make one.
    fn new(name: &str) -> Option<Self> {
        match super::Version::of_machine() {
            super::Version::V1 => Self::v1(name),
            super::Version::V2 => Self::v2(name),
        }
    }

    fn v2(name: &str) -> Option<Self> {
        let root = Path::new(super::MOUNT_POINT);
        let path = format!("/wherry-test-{}-{name}", std::process::id());
        let made = fs::write(root.join("cgroup.subtree_control"), "+memory")
            .and_then(|()| fs::create_dir(root.join(&path[1..])));
        if let Err(error) = made {
            eprintln!("SKIPPED: cannot make a cgroup with memory control: {error}");
            return None;
        }
        Some(Self {
            cgroup: super::Cgroup::of_path(&path).unwrap(),
        })
    }

    /// A new one where the machine has v1; `None`, with a note, where it has v2 or we may not.
    fn v1(name: &str) -> Option<Self> {
        if super::Version::of_machine() != super::Version::V1 {
            eprintln!("SKIPPED: this machine has cgroup v2");
            return None;
        }
        let path = format!("/wherry-test-{}-{name}", std::process::id());
        for point in v1_mount_points() {
            if let Err(error) = fs::create_dir(point.join(&path[1..])) {
                eprintln!(
                    "SKIPPED: cannot make a cgroup in {}: {error}",
                    point.display()
                );
                return None;
            }
            // A new cpuset takes no process until it is told its processors and memory nodes.
            for name in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(point.join(name)) {
                    fs::write(point.join(&path[1..]).join(name), value.trim()).unwrap();
                }
            }
        }
        Some(Self {
            cgroup: super::Cgroup::of_path(&path).unwrap(),
        })
    }

    fn dir(&self, controller: &str) -> &Path {
        match self.cgroup.version() {
            super::Version::V1 => self.cgroup.controller(controller).unwrap(),
            super::Version::V2 => self.cgroup.unified_dir().unwrap(),
        }
    }
}

impl Drop for LiveCgroup {
    fn drop(&mut self) {
        let _ = self.cgroup.kill_all();
        if let Err(error) = self.cgroup.remove() {
            eprintln!("cannot clean up: {error}");
        }
    }
}

fn v1_mount_points() -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .filter(|point| point.starts_with(super::MOUNT_POINT))
        .collect()
}
