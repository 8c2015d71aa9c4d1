//! The `hugetlb` controller: one group of files for each page size.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::HugeTlbStat;

use super::super::tree;
use super::files;

/// One entry per page size, ordered by the size's name as the kernel writes it (`64KB`, `2MB`,
/// `1GB`). Bytes; no limit is `u64::MAX`; `failcnt` counts how often the limit was met.
pub(super) fn read(dir: &Path) -> std::io::Result<Vec<HugeTlbStat>> {
    let sizes = tree::file_names_between(dir, "hugetlb.", ".current")?;
    // The reservation counters (kernel 5.7) are named after a size as well: `2MB.rsvd`.
    let sizes = sizes.into_iter().filter(|size| !size.contains('.'));
    sizes
        .map(|size| {
            let events = files::optional(files::read(dir, &format!("hugetlb.{size}.events")))?;
            let mut stat = HugeTlbStat::new();
            stat.current = files::number(dir, &format!("hugetlb.{size}.current"), u64::MAX)?;
            stat.max = files::number(dir, &format!("hugetlb.{size}.max"), u64::MAX)?;
            stat.failcnt = events
                .and_then(|text| files::value_of(&text, "max"))
                .unwrap_or(0);
            stat.pagesize = size;
            Ok(stat)
        })
        .collect()
}
