//! What the kernel tells of a process: memory, wake-ups, processor time.

use std::fs;

/// Memory of a process in kB, from `/proc/PID/smaps_rollup`.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Pages that no other process has and that are not on disk.
    pub private_dirty: f64,
    /// All resident pages, each by the share of one among those who have it.
    pub proportional: f64,
    /// All resident pages, shared ones in full.
    pub resident: f64,
}

/// Reads the memory of a process.
///
/// # Panics
/// When the process is gone.
pub fn memory(pid: i32) -> Memory {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("{path} has no {name}"))
    };
    Memory {
        private_dirty: field("Private_Dirty:"),
        proportional: field("Pss:"),
        resident: field("Rss:"),
    }
}

/// Context switches of all threads so far, voluntary and not.
pub fn switches(pid: i32) -> f64 {
    let of_thread = |status: &String| -> f64 {
        status
            .lines()
            .filter_map(|l| l.split_once("ctxt_switches:"))
            .filter_map(|(_, number)| number.trim().parse::<f64>().ok())
            .sum()
    };
    threads_files(pid, "status").iter().map(of_thread).sum()
}

/// Seconds on a processor of all threads that there ever were, counted in hundredths.
///
/// # Panics
/// When the process is gone.
pub fn processor_seconds(pid: i32) -> f64 {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    // Fields 14 and 15 of proc(5); what follows the name, which may have spaces, begins with 3.
    let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Seconds on a processor of all living threads so far, from schedstat, which counts nanoseconds.
pub fn cpu_seconds(pid: i32) -> f64 {
    let of_thread =
        |stat: &String| -> Option<f64> { stat.split_whitespace().next()?.parse::<f64>().ok() };
    let files = threads_files(pid, "schedstat");
    files.iter().filter_map(of_thread).sum::<f64>() / 1e9
}

fn threads_files(pid: i32, file: &str) -> Vec<String> {
    let dir = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{dir}: {e}"));
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok())
        .collect()
}
