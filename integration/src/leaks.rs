//! What a test may leave behind, as two pictures to compare.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt as _;
use std::time::Duration;

use crate::bed::Bed;
use crate::host;
use crate::wait::holds;

/// Everything of one bed that exists outside of the test: by namespace, folder and cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    items: BTreeSet<String>,
}

impl Leaks {
    /// The picture of now.
    pub fn snapshot(bed: &Bed) -> Self {
        let mut items = BTreeSet::new();
        for pid in bed.processes() {
            items.insert(format!("process {pid} {}", host::cmdline(pid).join(" ")));
        }
        for mount in host::mounts_below(bed.dir()) {
            items.insert(format!("mount {}", mount.display()));
        }
        for cgroup in host::cgroups(&bed.cgroup("")) {
            items.insert(format!("cgroup {}", cgroup.display()));
        }
        for socket in bed.sockets() {
            items.insert(format!("socket {}", socket.display()));
        }
        let special = |kind: &std::fs::FileType| kind.is_fifo() || kind.is_socket();
        for path in host::files_below(bed.dir(), &special) {
            items.insert(format!("special file {}", path.display()));
        }
        for path in bed.runtime_states() {
            items.insert(format!("runtime state {}", path.display()));
        }
        Self { items }
    }

    /// The descriptors, threads and children of one shim, for a before and an after.
    pub fn of_shim(pid: i32) -> Self {
        let mut items = BTreeSet::new();
        for (number, target) in host::descriptors(pid) {
            // Inode numbers of pipes and sockets change from use to use; their count does not.
            let kind = target.split(':').next().unwrap_or_default();
            items.insert(format!("descriptor {number} {kind}"));
        }
        items.insert(format!("threads {}", host::threads(pid)));
        for child in host::children(pid) {
            // Its name changes while a container's init becomes the program.
            items.insert(format!("child {child}"));
        }
        Self { items }
    }

    /// What exists now and did not before, in words.
    pub fn compare(&self, before: &Self) -> Vec<String> {
        self.items.difference(&before.items).cloned().collect()
    }

    /// Waits until the bed is as it was `before`; panics with what is left.
    #[track_caller]
    pub fn none_since(bed: &Bed, before: &Self) {
        let mut left = Vec::new();
        let clean = holds(Duration::from_secs(10), || {
            left = Self::snapshot(bed).compare(before);
            left.is_empty()
        });
        assert!(clean, "left behind: {left:#?}");
    }
}
