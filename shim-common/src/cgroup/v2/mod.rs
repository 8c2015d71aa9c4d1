//! Statistics of a cgroup v2 container, `io.containerd.cgroups.v2.Metrics`: one file per controller.
//!
//! The Go shims always send the parts `pids`, `cpu`, `memory`, `io` and `rdma`, zero where the
//! controller is not enabled; `memory_events` and pressure only where the kernel has them. `network`
//! is a field no Go shim fills on Linux; we leave it empty too.

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

use super::files;

/// The type name under which clients look up the message.
pub(super) const TYPE_URL: &str = "io.containerd.cgroups.v2.Metrics";

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

/// How many processes of this cgroup and below the kernel's OOM killer has killed, from whatever limit:
/// `oom_kill` of `memory.events`. (`oom` counts at the cgroup whose limit was hit, which may be an
/// ancestor.) Zero when the memory controller is not enabled.
pub(super) fn oom_kills(dir: &Path) -> std::io::Result<u64> {
    let text = files::optional(files::read(dir, "memory.events"))?;
    Ok(text.and_then(|text| files::value_of(&text, "oom_kill")).unwrap_or(0))
}
