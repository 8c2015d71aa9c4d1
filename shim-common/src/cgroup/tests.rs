//! Tests of whole cgroups: v2 from folders of files, killing and OOM on this machine's kernel, and
//! v1 figures beside those of the Go shim.

mod against_go;
mod folder_v2;
mod live;

use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup v1 in every hierarchy of this machine, removed at the end; `None`, with a note, where
/// the machine has v2 or we may not make one.
struct LiveCgroup {
    cgroup: super::Cgroup,
}

impl LiveCgroup {
    fn new(name: &str) -> Option<Self> {
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
        self.cgroup.controller(controller).unwrap()
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
