//! The `rdma` controller: handles and objects in use and allowed, for each device.

use std::io;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics::{RdmaEntry, RdmaStat};

use super::super::files;

/// `None` when the cgroup has no such files. No limit is `u32::MAX`.
pub(super) fn read(dir: &Path) -> io::Result<Option<RdmaStat>> {
    let Some(current) = files::optional(files::read(dir, "rdma.current"))? else {
        return Ok(None);
    };
    let limit = files::optional(files::read(dir, "rdma.max"))?.unwrap_or_default();
    let mut stat = RdmaStat::new();
    stat.current = current.lines().filter_map(entry).collect();
    stat.limit = limit.lines().filter_map(entry).collect();
    Ok(Some(stat))
}

fn entry(line: &str) -> Option<RdmaEntry> {
    let counted = super::super::rdma::parse(line)?;
    let mut entry = RdmaEntry::new();
    entry.device = counted.device.to_owned();
    entry.hca_handles = counted.handles;
    entry.hca_objects = counted.objects;
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn usage_and_limits() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        fs::write(
            dir.path().join("rdma.current"),
            "mlx4_0 hca_handle=1 hca_object=20\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("rdma.max"),
            "mlx4_0 hca_handle=2 hca_object=max\n",
        )
        .unwrap();
        let stat = read(dir.path()).unwrap().unwrap();
        assert_eq!(stat.current[0].device, "mlx4_0");
        assert_eq!(
            (stat.current[0].hca_handles, stat.current[0].hca_objects),
            (1, 20)
        );
        assert_eq!(
            (stat.limit[0].hca_handles, stat.limit[0].hca_objects),
            (2, u32::MAX)
        );
    }
}
