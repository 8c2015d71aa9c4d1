//! The `memory` controller: `memory.stat`, usage and limits of memory and swap, pressure, events.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{MemoryEvents, MemoryStat};

use super::{files, pressure};

/// Figures in bytes except those `memory.stat` counts in events; no limit is `u64::MAX`. All zero
/// where the controller is not enabled.
pub(super) fn read(dir: &Path) -> std::io::Result<MemoryStat> {
    let mut stat = MemoryStat::new();
    if let Some(text) = files::optional(files::read(dir, "memory.stat"))? {
        for (key, value) in files::pairs(&text) {
            match key {
                // Kernel 5.9 split these counters in two; clients still read the sum.
                "workingset_refault_anon" | "workingset_refault_file" => {
                    stat.workingset_refault = stat.workingset_refault.saturating_add(value);
                }
                "workingset_activate_anon" | "workingset_activate_file" => {
                    stat.workingset_activate = stat.workingset_activate.saturating_add(value);
                }
                _ => {
                    if let Some(field) = field(&mut stat, key) {
                        *field = value;
                    }
                }
            }
        }
    }
    let number = |name| files::number(dir, name, u64::MAX);
    stat.usage = number("memory.current")?;
    stat.usage_limit = number("memory.max")?;
    // The peaks came with kernels 5.19 (memory) and 6.5 (swap).
    stat.max_usage = number("memory.peak")?;
    stat.swap_usage = number("memory.swap.current")?;
    stat.swap_limit = number("memory.swap.max")?;
    stat.swap_max_usage = number("memory.swap.peak")?;
    stat.psi = pressure::read(dir, "memory.pressure")?.into();
    Ok(stat)
}

/// How often each limit was met, and the OOM killer's work; descendants included. `None` where the
/// controller is not enabled.
pub(super) fn read_events(dir: &Path) -> std::io::Result<Option<MemoryEvents>> {
    let Some(text) = files::optional(files::read(dir, "memory.events"))? else {
        return Ok(None);
    };
    let mut events = MemoryEvents::new();
    for (key, value) in files::pairs(&text) {
        match key {
            "low" => events.low = value,
            "high" => events.high = value,
            "max" => events.max = value,
            "oom" => events.oom = value,
            "oom_kill" => events.oom_kill = value,
            "oom_group_kill" => events.oom_group_kill = value,
            _ => {}
        }
    }
    Ok(Some(events))
}

/// Which field a key of `memory.stat` belongs to.
fn field<'a>(stat: &'a mut MemoryStat, key: &str) -> Option<&'a mut u64> {
    Some(match key {
        "anon" => &mut stat.anon,
        "file" => &mut stat.file,
        "kernel_stack" => &mut stat.kernel_stack,
        "slab" => &mut stat.slab,
        "sock" => &mut stat.sock,
        "shmem" => &mut stat.shmem,
        "file_mapped" => &mut stat.file_mapped,
        "file_dirty" => &mut stat.file_dirty,
        "file_writeback" => &mut stat.file_writeback,
        "anon_thp" => &mut stat.anon_thp,
        "inactive_anon" => &mut stat.inactive_anon,
        "active_anon" => &mut stat.active_anon,
        "inactive_file" => &mut stat.inactive_file,
        "active_file" => &mut stat.active_file,
        "unevictable" => &mut stat.unevictable,
        "slab_reclaimable" => &mut stat.slab_reclaimable,
        "slab_unreclaimable" => &mut stat.slab_unreclaimable,
        "pgfault" => &mut stat.pgfault,
        "pgmajfault" => &mut stat.pgmajfault,
        "workingset_refault" => &mut stat.workingset_refault,
        "workingset_activate" => &mut stat.workingset_activate,
        "workingset_nodereclaim" => &mut stat.workingset_nodereclaim,
        "pgrefill" => &mut stat.pgrefill,
        "pgscan" => &mut stat.pgscan,
        "pgsteal" => &mut stat.pgsteal,
        "pgactivate" => &mut stat.pgactivate,
        "pgdeactivate" => &mut stat.pgdeactivate,
        "pglazyfree" => &mut stat.pglazyfree,
        "pglazyfreed" => &mut stat.pglazyfreed,
        "thp_fault_alloc" => &mut stat.thp_fault_alloc,
        "thp_collapse_alloc" => &mut stat.thp_collapse_alloc,
        _ => return None,
    })
}
