//! Pressure stall information (`Documentation/accounting/psi.rst`), which each of cpu, memory and
//! io has in a file of its own.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{PSIData, PSIStats};

use super::files;

/// `None` when the kernel has no PSI or it is switched off. Shares in percent, totals in
/// microseconds. The `full` line of cpu came with kernel 5.13.
pub(super) fn read(dir: &Path, name: &str) -> std::io::Result<Option<PSIStats>> {
    let Some(text) = files::optional(files::read(dir, name))? else {
        return Ok(None);
    };
    let mut stats = PSIStats::new();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("some", rest)) => stats.some = Some(data(rest)).into(),
            Some(("full", rest)) => stats.full = Some(data(rest)).into(),
            _ => {}
        }
    }
    Ok((stats.some.is_some() || stats.full.is_some()).then_some(stats))
}

fn data(text: &str) -> PSIData {
    let mut data = PSIData::new();
    for (key, value) in text
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        match key {
            "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
            "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
            "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
            "total" => data.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    data
}
