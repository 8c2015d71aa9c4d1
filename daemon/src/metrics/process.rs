//! What the daemon itself uses, under the names of Prometheus' libraries.

use std::fs;

use super::text::Text;

/// What is known of this process.
#[derive(Debug, Default)]
pub struct Usage {
    /// Processor time, in clock ticks.
    pub ticks: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Address space, in bytes.
    pub address_space: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// When it was started, in clock ticks since boot.
    started: u64,
}

/// Linux counts a hundred of them in a second, whatever its timer does.
const TICKS: u64 = 100;

/// Reads `/proc/self`; what cannot be read stays 0.
pub fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may contain anything; the third field comes after it.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let fields: Vec<u64> = after
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Usage {
        ticks: field(14) + field(15),
        resident: resident.unwrap_or(0) << 10,
        address_space: field(23),
        threads: field(20),
        // Without the one by which they were counted.
        descriptors: u64::try_from(descriptors).unwrap_or(0).saturating_sub(1),
        started: field(22),
    }
}

/// A limit of this process; `None` where there is none.
fn limit(name: &str) -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// When the machine was started, in seconds since 1970.
fn boot() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// Writes everything.
pub fn write(text: &mut Text) {
    let usage = usage();
    let seconds = |ticks: u64| format!("{}.{:02}", ticks / TICKS, ticks % TICKS);
    text.family(
        "process_cpu_seconds_total",
        "counter",
        "Processor time used.",
    )
    .sample(&[], seconds(usage.ticks));
    let gauges = [
        ("process_open_fds", "Open descriptors.", usage.descriptors),
        (
            "process_resident_memory_bytes",
            "Resident memory.",
            usage.resident,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space.",
            usage.address_space,
        ),
    ];
    for (name, help, value) in gauges {
        text.family(name, "gauge", help).sample(&[], value);
    }
    if let Some(limit) = limit("Max open files") {
        text.family("process_max_fds", "gauge", "Descriptors allowed.")
            .sample(&[], limit);
    }
    let name = "process_virtual_memory_max_bytes";
    let mut family = text.family(name, "gauge", "Address space allowed.");
    match limit("Max address space") {
        Some(limit) => family.sample(&[], limit),
        // No limit is, as in Go's library, the largest number.
        None => family.sample(&[], u64::MAX),
    }
    if let Some(boot) = boot() {
        let name = "process_start_time_seconds";
        text.family(name, "gauge", "Start of the process, since 1970.")
            .sample(&[], seconds(boot * TICKS + usage.started));
    }
}
