//! The `pids` controller.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::PidsStat;

use super::files;

/// How many tasks there are and may be; no limit is `u64::MAX`.
pub(super) fn read(dir: &Path) -> std::io::Result<PidsStat> {
    let mut stat = PidsStat::new();
    stat.current = files::number(dir, "pids.current", u64::MAX)?;
    stat.limit = files::number(dir, "pids.max", u64::MAX)?;
    Ok(stat)
}
