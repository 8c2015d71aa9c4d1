//! Statistics of a cgroup v2 container, `io.containerd.cgroups.v2.Metrics`: one file per
//! controller.
//!
//! The Go shims always send the parts `pids`, `cpu`, `memory`, `io` and `rdma`, zero where the
//! controller is not enabled; `memory_events` and pressure only where the kernel has them.
//! `network` is a field no Go shim fills on Linux; we leave it empty too.

pub(super) mod controllers;
mod cpu;
mod hugetlb;
mod io;
mod memory;
mod pids;
mod pressure;
mod rdma;

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::Metrics;

use super::{FreezeState, files};

/// The type name under which clients look up the message.
pub(super) const TYPE_URL: &str = "io.containerd.cgroups.v2.Metrics";

/// The file with the counters of OOM kills.
pub(super) const MEMORY_EVENTS: &str = "memory.events";

/// Reads every controller of the cgroup at `dir`.
///
/// # Errors
/// A file that is there and cannot be read or understood; the error names it.
pub(super) fn metrics(dir: &Path) -> std::io::Result<Metrics> {
    let mut metrics = Metrics::new();
    metrics.pids = Some(pids::read(dir)?).into();
    metrics.cpu = Some(cpu::read(dir)?).into();
    metrics.memory = Some(memory::read(dir)?).into();
    metrics.memory_events = memory::read_events(dir)?.into();
    metrics.io = Some(io::read(dir)?).into();
    metrics.rdma = Some(rdma::read(dir)?).into();
    metrics.hugetlb = hugetlb::read(dir)?;
    Ok(metrics)
}

/// How many processes of this cgroup and below the kernel's OOM killer has killed, from whatever
/// limit: `oom_kill` of `memory.events`. (`oom` counts at the cgroup whose limit was hit, which may
/// be an ancestor.) Zero when the memory controller is not enabled.
pub(super) fn oom_kills(dir: &Path) -> std::io::Result<u64> {
    match files::optional(files::read(dir, MEMORY_EVENTS))? {
        Some(text) => Ok(oom_kills_in(&text)),
        // Without the file, the cgroup decides whether that is an answer: events are never empty.
        None => files::read(dir, "cgroup.events").map(|_| 0),
    }
}

/// [`oom_kills`] of a text of `memory.events`.
pub(super) fn oom_kills_in(text: &str) -> u64 {
    files::value_of(text, "oom_kill").unwrap_or(0)
}

/// Whether any process is in the cgroup or below; `NotFound` when the cgroup is gone.
pub(super) fn populated(dir: &Path) -> std::io::Result<bool> {
    let text = files::read(dir, "cgroup.events")?;
    Ok(files::value_of(&text, "populated") != Some(0))
}

/// What was asked for (`cgroup.freeze`) and what has come of it (`frozen` of `cgroup.events`). An
/// ancestor's freeze shows as frozen too.
pub(super) fn freeze_state(dir: &Path) -> std::io::Result<FreezeState> {
    let events = files::read(dir, "cgroup.events")?;
    if files::value_of(&events, "frozen") == Some(1) {
        return Ok(FreezeState::Frozen);
    }
    // Kernels before 5.2 cannot freeze.
    let asked = files::optional(files::read(dir, "cgroup.freeze"))?.unwrap_or_default();
    Ok(if asked.trim() == "1" {
        FreezeState::Freezing
    } else {
        FreezeState::Thawed
    })
}
