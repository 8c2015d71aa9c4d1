//! Whether a folder is part of a mount: then a container may be standing on it, and it must not be
//! replaced, whoever serves meanwhile.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mount tables of all processes, one for each mount namespace.
#[derive(Debug)]
pub struct Mounts(Vec<String>);

impl Mounts {
    /// Reads them. What ends meanwhile is left out.
    pub fn read() -> Self {
        let mut known = HashSet::new();
        let mut tables = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let process = entry.path();
            let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else {
                continue;
            };
            if known.insert(namespace) {
                tables.extend(fs::read_to_string(process.join("mountinfo")));
            }
        }
        Self(tables)
    }

    /// Where a folder is shown by a mount: as a layer of an overlay, or as it is.
    pub fn showing(&self, folder: &Path) -> Option<PathBuf> {
        let device = fs::metadata(folder).map_or(0, |found| found.dev());
        let device = format!(
            "{}:{}",
            nix::sys::stat::major(device),
            nix::sys::stat::minor(device)
        );
        let lines = self.0.iter().flat_map(|table| table.lines());
        lines
            .filter(|line| shows(line, folder, &device))
            .find_map(|line| line.split(' ').nth(4).map(PathBuf::from))
    }
}

/// Whether a line of a mount table (proc_pid_mountinfo(5)) shows `folder`, which is on `device`.
fn shows(line: &str, folder: &Path, device: &str) -> bool {
    let (Some((mount, rest)), Some(snapshots), Some(number)) = (
        line.split_once(" - "),
        folder.parent(),
        folder.file_name().map(|name| name.to_string_lossy()),
    ) else {
        return false;
    };
    let mut fields = mount.split(' ');
    if fields.nth(2) == Some(device)
        && let Some(root) = fields.next()
    {
        // A bind mount names the folder as its own filesystem does: the end of our path.
        let root = Path::new(root.trim_start_matches('/'));
        let is_below = |at: &Path| folder.ends_with(at) && at.ends_with(&*number);
        if root.ancestors().take(2).any(is_below) && root.components().count() > 1 {
            return true;
        }
    }
    if !rest.starts_with("overlay ") {
        return false;
    }
    let parts: Vec<&Path> = rest.split([',', ':', '=']).map(Path::new).collect();
    // Long options name layers relative to the folder of all of them.
    let absolute: Vec<&&Path> = parts.iter().filter(|part| part.is_absolute()).collect();
    let relative = absolute.is_empty() || absolute.iter().any(|part| part.starts_with(snapshots));
    parts
        .iter()
        .any(|part| part.starts_with(folder) || relative && part.starts_with(Path::new(&*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_overlays_and_bind_mounts_are_in_use() {
        let folder = Path::new("/var/lib/containerd/sn/snapshots/12");
        let overlay = |options: &str| format!("9 1 0:40 / /run/r rw - overlay overlay {options}");
        for line in [
            overlay("rw,lowerdir=/var/lib/containerd/sn/snapshots/12/fs"),
            overlay("rw,lowerdir=/x/1/fs:/var/lib/containerd/sn/snapshots/12/fs,upperdir=/x/2/fs"),
            overlay("rw,lowerdir=11/fs:12/fs"),
            overlay("rw,lowerdir=12/fs,upperdir=/var/lib/containerd/sn/snapshots/13/fs"),
            "9 1 8:1 /containerd/sn/snapshots/12/fs /run/r rw - ext4 /dev/x rw".to_owned(),
            "9 1 8:1 /containerd/sn/snapshots/12 /run/r rw - ext4 /dev/x rw".to_owned(),
        ] {
            assert!(shows(&line, folder, "8:1"), "{line}");
        }
        for line in [
            overlay("rw,lowerdir=/var/lib/containerd/sn/snapshots/121/fs"),
            overlay("rw,lowerdir=/elsewhere/snapshots/12/fs"),
            overlay("rw,lowerdir=12/fs,upperdir=/elsewhere/snapshots/13/fs"),
            "9 1 8:2 /containerd/sn/snapshots/12/fs /run/r rw - ext4 /dev/x rw".to_owned(),
            "9 1 8:1 / /var rw - ext4 /dev/x rw".to_owned(),
            "9 1 8:1 /12 /mnt rw - ext4 /dev/x rw".to_owned(),
        ] {
            assert!(!shows(&line, folder, "8:1"), "{line}");
        }
    }
}
