//! Statistics of a cgroup v1 container, `io.containerd.cgroups.v1.Metrics`: one file per
//! controller.
//!
//! The Go shims leave out what the machine does not have: a controller that is not mounted, a file
//! the kernel does not make. Network and task-state figures (`network`, `cgroup_stats`) are fields
//! that no Go shim fills on Linux; we leave them empty too.

mod blkio;
mod cpu;
mod hugetlb;
mod memory;
mod pids;
mod rdma;

use std::io;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics::Metrics;

use super::{FreezeState, files};

/// The type name under which clients look up the message.
pub(super) const TYPE_URL: &str = "io.containerd.cgroups.v1.Metrics";

/// Reads every controller. `dir` answers where a controller's files of this container are, `None`
/// when that controller is not mounted; `proc` is `/proc`.
///
/// # Errors
/// A file that is there and cannot be read or understood; the error names it.
pub(super) fn metrics<'a>(
    dir: impl Fn(&str) -> Option<&'a Path>,
    proc: &Path,
) -> io::Result<Metrics> {
    let mut metrics = Metrics::new();
    metrics.cpu = Some(cpu::read(dir("cpu"), dir("cpuacct"))?).into();
    if let Some(dir) = dir("memory") {
        metrics.memory = memory::read(dir)?.into();
        metrics.memory_oom_control = memory::read_oom_control(dir)?.into();
    }
    if let Some(dir) = dir("pids") {
        metrics.pids = pids::read(dir)?.into();
    }
    if let Some(dir) = dir("blkio") {
        metrics.blkio = Some(blkio::read(dir, proc)?).into();
    }
    if let Some(dir) = dir("hugetlb") {
        metrics.hugetlb = hugetlb::read(dir)?;
    }
    if let Some(dir) = dir("rdma") {
        metrics.rdma = rdma::read(dir)?.into();
    }
    Ok(metrics)
}

/// How many processes of this memory cgroup the kernel's OOM killer has killed, descendants
/// included: on v1 each cgroup counts only its own. Zero when the kernel does not count.
pub(super) fn oom_kills(dir: &Path) -> io::Result<u64> {
    let mut kills = 0_u64;
    super::tree::visit(dir, &mut |dir| {
        kills = kills.saturating_add(memory::read_oom_control(dir)?.map_or(0, |oom| oom.oom_kill));
        Ok(())
    })?;
    Ok(kills)
}

/// What the freezer says of the cgroup at `dir`.
pub(super) fn freeze_state(dir: &Path) -> io::Result<FreezeState> {
    let text = files::read(dir, "freezer.state")?;
    Ok(match text.trim() {
        "FROZEN" => FreezeState::Frozen,
        "FREEZING" => FreezeState::Freezing,
        _ => FreezeState::Thawed,
    })
}
