//! Statistics of a container on cgroup v2 as samples, under containerd's names.

use containerd_shim_protos::cgroups_v2::metrics::{MemoryStat, Metrics};

use super::containers::Samples;

/// Writes what `metrics` has; a controller that is missing gives no samples.
pub(super) fn write(samples: &mut Samples<'_>, metrics: &Metrics) {
    if let Some(cpu) = metrics.cpu.as_ref() {
        samples.add("cpu_usage_usec_microseconds", cpu.usage_usec);
        samples.add("cpu_user_usec_microseconds", cpu.user_usec);
        samples.add("cpu_system_usec_microseconds", cpu.system_usec);
        samples.add("cpu_nr_periods_total", cpu.nr_periods);
        samples.add("cpu_nr_throttled_total", cpu.nr_throttled);
        samples.add("cpu_throttled_usec_microseconds", cpu.throttled_usec);
    }
    if let Some(pids) = metrics.pids.as_ref() {
        samples.add("pids_current", pids.current);
        samples.add("pids_limit", pids.limit);
    }
    if let Some(memory) = metrics.memory.as_ref() {
        write_memory(samples, memory);
    }
    if let Some(events) = metrics.memory_events.as_ref() {
        samples.add("memory_oom_total", events.oom);
    }
    for entry in metrics.io.as_ref().map_or(&[][..], |io| &io.usage) {
        let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
        let labels = [("major", major.as_str()), ("minor", minor.as_str())];
        samples.add_of("io_rbytes_bytes", &labels, entry.rbytes);
        samples.add_of("io_wbytes_bytes", &labels, entry.wbytes);
        samples.add_of("io_rios_total", &labels, entry.rios);
        samples.add_of("io_wios_total", &labels, entry.wios);
    }
}

fn write_memory(samples: &mut Samples<'_>, memory: &MemoryStat) {
    let counted = [
        ("anon", memory.anon),
        ("file", memory.file),
        ("kernel_stack", memory.kernel_stack),
        ("slab", memory.slab),
        ("sock", memory.sock),
        ("shmem", memory.shmem),
        ("file_mapped", memory.file_mapped),
        ("file_dirty", memory.file_dirty),
        ("file_writeback", memory.file_writeback),
        ("anon_thp", memory.anon_thp),
        ("inactive_anon", memory.inactive_anon),
        ("active_anon", memory.active_anon),
        ("inactive_file", memory.inactive_file),
        ("active_file", memory.active_file),
        ("unevictable", memory.unevictable),
        ("slab_reclaimable", memory.slab_reclaimable),
        ("slab_unreclaimable", memory.slab_unreclaimable),
        ("pgfault", memory.pgfault),
        ("pgmajfault", memory.pgmajfault),
        ("workingset_refault", memory.workingset_refault),
        ("workingset_activate", memory.workingset_activate),
        ("workingset_nodereclaim", memory.workingset_nodereclaim),
        ("pgrefill", memory.pgrefill),
        ("pgscan", memory.pgscan),
        ("pgsteal", memory.pgsteal),
        ("pgactivate", memory.pgactivate),
        ("pgdeactivate", memory.pgdeactivate),
        ("pglazyfree", memory.pglazyfree),
        ("pglazyfreed", memory.pglazyfreed),
        ("thp_fault_alloc", memory.thp_fault_alloc),
        ("thp_collapse_alloc", memory.thp_collapse_alloc),
        ("usage", memory.usage),
        ("usage_limit", memory.usage_limit),
        ("swap_usage", memory.swap_usage),
        ("swap_limit", memory.swap_limit),
    ];
    for (name, value) in counted {
        samples.add(&format!("memory_{name}_bytes"), value);
    }
}
