//! The second cgroup version of a hybrid machine, which crun wants to be without controllers.
//!
//! The kernel gives every controller that no v1 hierarchy has mounted to the v2 one, from the start and
//! without anybody asking: `hugetlb` on many machines. crun (1.8) then refuses every container. What runs
//! crun on such a machine does so in mounts of its own, from which the v2 hierarchy is unmounted.
#![expect(
    clippy::print_stderr,
    reason = "what is done to the machine's picture is said beside the progress"
)]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::target;

/// Where a hybrid machine mounts the second version.
pub const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// Set in the environment of a program once it runs in mounts of its own.
const OWN_MOUNTS: &str = "WHERRY_OWN_MOUNTS";

/// The controllers for which crun would refuse this machine; none where it would not.
pub fn controllers() -> String {
    let list = fs::read_to_string(Path::new(UNIFIED).join("cgroup.controllers"));
    list.unwrap_or_default().trim().to_owned()
}

/// Runs this program again in mounts of its own, without the second cgroup version, where that is
/// what keeps crun from working. Returns where there is nothing to hide, or it was done already.
pub fn hide() {
    let controllers = controllers();
    if controllers.is_empty()
        || target::find_in_path("crun").is_none()
        || std::env::var_os(OWN_MOUNTS).is_some()
    {
        return;
    }
    eprintln!(
        "== {UNIFIED} has {controllers}, which crun refuses: it is unmounted for this run alone"
    );
    let Ok(own) = std::env::current_exe() else {
        return;
    };
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("umount {UNIFIED}; exec \"$0\" \"$@\""))
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(OWN_MOUNTS, "1")
        .exec();
    eprintln!("unshare: {error}: crun will not work here");
}
