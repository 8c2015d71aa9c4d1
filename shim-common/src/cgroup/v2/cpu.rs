//! The `cpu` controller. Usage is there even where the controller is not enabled.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::CPUStat;

use super::{files, pressure};

/// Times in microseconds.
pub(super) fn read(dir: &Path) -> std::io::Result<CPUStat> {
    let mut stat = CPUStat::new();
    if let Some(text) = files::optional(files::read(dir, "cpu.stat"))? {
        for (key, value) in files::pairs(&text) {
            match key {
                "usage_usec" => stat.usage_usec = value,
                "user_usec" => stat.user_usec = value,
                "system_usec" => stat.system_usec = value,
                "nr_periods" => stat.nr_periods = value,
                "nr_throttled" => stat.nr_throttled = value,
                "throttled_usec" => stat.throttled_usec = value,
                // Bursts came with kernel 5.14.
                "nr_bursts" => stat.nr_bursts = value,
                "burst_usec" => stat.burst_usec = value,
                _ => {}
            }
        }
    }
    stat.psi = pressure::read(dir, "cpu.pressure")?.into();
    Ok(stat)
}
