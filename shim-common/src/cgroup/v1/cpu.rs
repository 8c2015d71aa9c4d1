//! The `cpu` controller (throttling) and the `cpuacct` controller (usage), which v1 keeps apart.

use std::io;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics::{CPUStat, CPUUsage, Throttle};

use super::super::files;

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every architecture Linux containers run on;
/// the Go shims assume it too.
const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / 100;

/// Times come out in nanoseconds. Both parts are always there, empty when their controller is not.
pub(super) fn read(cpu: Option<&Path>, cpuacct: Option<&Path>) -> io::Result<CPUStat> {
    let mut throttling = Throttle::new();
    let mut usage = CPUUsage::new();
    if let Some(dir) = cpu
        && let Some(text) = files::optional(files::read(dir, "cpu.stat"))?
    {
        for (key, value) in files::pairs(&text) {
            match key {
                "nr_periods" => throttling.periods = value,
                "nr_throttled" => throttling.throttled_periods = value,
                "throttled_time" => throttling.throttled_time = value,
                _ => {}
            }
        }
    }
    if let Some(dir) = cpuacct {
        usage.total = files::number(dir, "cpuacct.usage", 0)?;
        // User and system time come from cpuacct.stat, which the kernel scales to add up to the
        // exact total; cpuacct.usage_user and _sys are raw samples, and no Go shim shows them.
        if let Some(text) = files::optional(files::read(dir, "cpuacct.stat"))? {
            let ticks = |key| files::value_of(&text, key).unwrap_or(0);
            usage.user = ticks("user").saturating_mul(NANOSECONDS_PER_TICK);
            usage.kernel = ticks("system").saturating_mul(NANOSECONDS_PER_TICK);
        }
        if let Some(text) = files::optional(files::read(dir, "cpuacct.usage_percpu"))? {
            usage.per_cpu = text
                .split_ascii_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect();
        }
    }
    let mut stat = CPUStat::new();
    stat.usage = Some(usage).into();
    stat.throttling = Some(throttling).into();
    Ok(stat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_controllers_in_nanoseconds() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "cpu.stat",
            "nr_periods 10\nnr_throttled 3\nthrottled_time 200000\nwait_sum 9\n",
        );
        write("cpuacct.usage", "123456789\n");
        write("cpuacct.stat", "user 7\nsystem 5\n");
        write("cpuacct.usage_percpu", "100000000 23456789 \n");
        let stat = read(Some(dir.path()), Some(dir.path())).unwrap();
        assert_eq!(stat.throttling().periods, 10);
        assert_eq!(stat.throttling().throttled_periods, 3);
        assert_eq!(stat.throttling().throttled_time, 200_000);
        assert_eq!(stat.usage().total, 123_456_789);
        assert_eq!(stat.usage().user, 70_000_000);
        assert_eq!(stat.usage().kernel, 50_000_000);
        assert_eq!(stat.usage().per_cpu, [100_000_000, 23_456_789]);
    }

    #[test]
    fn an_unmounted_controller_leaves_zeros() {
        let stat = read(None, None).unwrap();
        assert_eq!(stat.usage().total, 0);
        assert!(stat.throttling.is_some());
    }
}
