//! The `rdma` controller: handles and objects in use and allowed, for each device.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{RdmaEntry, RdmaStat};

use super::files;

/// Empty lists where the controller is not enabled. No limit is `u32::MAX`.
pub(super) fn read(dir: &Path) -> std::io::Result<RdmaStat> {
    let entries = |name| -> std::io::Result<Vec<RdmaEntry>> {
        let text = files::optional(files::read(dir, name))?.unwrap_or_default();
        Ok(text.lines().filter_map(entry).collect())
    };
    let mut stat = RdmaStat::new();
    stat.current = entries("rdma.current")?;
    stat.limit = entries("rdma.max")?;
    Ok(stat)
}

fn entry(line: &str) -> Option<RdmaEntry> {
    let counted = super::super::rdma::parse(line)?;
    let mut entry = RdmaEntry::new();
    entry.device = counted.device.to_owned();
    entry.hca_handles = counted.handles;
    entry.hca_objects = counted.objects;
    Some(entry)
}
