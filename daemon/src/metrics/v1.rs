//! Statistics of a container on cgroup v1 as samples, under containerd's names.

use containerd_shim_protos::cgroups::metrics::{BlkIOEntry, MemoryEntry, MemoryStat, Metrics};

use super::containers::Samples;

/// Writes what `metrics` has; a controller that is missing gives no samples.
pub(super) fn write(samples: &mut Samples<'_>, metrics: &Metrics) {
    if let Some(cpu) = metrics.cpu.as_ref() {
        if let Some(usage) = cpu.usage.as_ref() {
            samples.add("cpu_total_nanoseconds", usage.total);
            samples.add("cpu_kernel_nanoseconds", usage.kernel);
            samples.add("cpu_user_nanoseconds", usage.user);
            for (cpu, time) in usage.per_cpu.iter().enumerate() {
                let cpu = cpu.to_string();
                samples.add_of("per_cpu_nanoseconds", &[("cpu", &cpu)], *time);
            }
        }
        if let Some(throttling) = cpu.throttling.as_ref() {
            samples.add("cpu_throttle_periods_total", throttling.periods);
            samples.add("cpu_throttled_periods_total", throttling.throttled_periods);
            samples.add("cpu_throttled_time_nanoseconds", throttling.throttled_time);
        }
    }
    if let Some(pids) = metrics.pids.as_ref() {
        samples.add("pids_current", pids.current);
        samples.add("pids_limit", pids.limit);
    }
    if let Some(memory) = metrics.memory.as_ref() {
        write_memory(samples, memory);
    }
    if let Some(oom) = metrics.memory_oom_control.as_ref()
        && oom.oom_kill > 0
    {
        // containerd counts since its own start; the kernel counts for longer.
        samples.add("memory_oom_total", oom.oom_kill);
    }
    for page in &metrics.hugetlb {
        let labels = [("page", page.pagesize.as_str())];
        samples.add_of("hugetlb_usage_bytes", &labels, page.usage);
        samples.add_of("hugetlb_max_bytes", &labels, page.max);
        samples.add_of("hugetlb_failcnt_total", &labels, page.failcnt);
    }
    if let Some(io) = metrics.blkio.as_ref() {
        let figures: [(&str, &[BlkIOEntry]); 7] = [
            ("io_merged_recursive_total", &io.io_merged_recursive),
            ("io_queued_recursive_total", &io.io_queued_recursive),
            (
                "io_service_bytes_recursive_bytes",
                &io.io_service_bytes_recursive,
            ),
            (
                "io_service_time_recursive_total",
                &io.io_service_time_recursive,
            ),
            ("io_serviced_recursive_total", &io.io_serviced_recursive),
            ("io_time_recursive_total", &io.io_time_recursive),
            ("sectors_recursive_total", &io.sectors_recursive),
        ];
        for (name, entries) in figures {
            for entry in entries {
                let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
                let labels = [
                    ("op", entry.op.as_str()),
                    ("device", entry.device.as_str()),
                    ("major", &major),
                    ("minor", &minor),
                ];
                samples.add_of(&format!("blkio_{name}"), &labels, entry.value);
            }
        }
    }
}

fn write_memory(samples: &mut Samples<'_>, memory: &MemoryStat) {
    let counted = [
        ("cache", memory.cache),
        ("rss", memory.rss),
        ("rss_huge", memory.rss_huge),
        ("mapped_file", memory.mapped_file),
        ("dirty", memory.dirty),
        ("writeback", memory.writeback),
        ("pgpgin", memory.pg_pg_in),
        ("pgpgout", memory.pg_pg_out),
        ("pgfault", memory.pg_fault),
        ("pgmajfault", memory.pg_maj_fault),
        ("inactive_anon", memory.inactive_anon),
        ("active_anon", memory.active_anon),
        ("inactive_file", memory.inactive_file),
        ("active_file", memory.active_file),
        ("unevictable", memory.unevictable),
        (
            "hierarchical_memory_limit",
            memory.hierarchical_memory_limit,
        ),
        ("hierarchical_memsw_limit", memory.hierarchical_swap_limit),
        ("total_cache", memory.total_cache),
        ("total_rss", memory.total_rss),
        ("total_rss_huge", memory.total_rss_huge),
        ("total_mapped_file", memory.total_mapped_file),
        ("total_dirty", memory.total_dirty),
        ("total_writeback", memory.total_writeback),
        ("total_pgpgin", memory.total_pg_pg_in),
        ("total_pgpgout", memory.total_pg_pg_out),
        ("total_pgfault", memory.total_pg_fault),
        ("total_pgmajfault", memory.total_pg_maj_fault),
        ("total_inactive_anon", memory.total_inactive_anon),
        ("total_active_anon", memory.total_active_anon),
        ("total_inactive_file", memory.total_inactive_file),
        ("total_active_file", memory.total_active_file),
        ("total_unevictable", memory.total_unevictable),
    ];
    for (name, value) in counted {
        samples.add(&format!("memory_{name}_bytes"), value);
    }
    let limited: [(&str, Option<&MemoryEntry>); 4] = [
        ("usage", memory.usage.as_ref()),
        ("swap", memory.swap.as_ref()),
        ("kernel", memory.kernel.as_ref()),
        ("kerneltcp", memory.kernel_tcp.as_ref()),
    ];
    for (name, entry) in limited {
        let Some(entry) = entry else { continue };
        samples.add(&format!("memory_{name}_usage_bytes"), entry.usage);
        samples.add(&format!("memory_{name}_limit_bytes"), entry.limit);
        samples.add(&format!("memory_{name}_max_bytes"), entry.max);
        samples.add(&format!("memory_{name}_failcnt_total"), entry.failcnt);
    }
}
