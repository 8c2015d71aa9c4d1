//! The `hugetlb` controller: one group of files for each page size.

use std::io;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics::HugetlbStat;

use super::super::{files, tree};

/// One entry per page size, ordered by the size's name; sizes are written as the kernel writes them
/// (`64KB`, `2MB`, `1GB`). `max` is the highest usage so far, not the limit. Bytes.
pub(super) fn read(dir: &Path) -> io::Result<Vec<HugetlbStat>> {
    let sizes = tree::file_names_between(dir, "hugetlb.", ".usage_in_bytes")?;
    // The reservation counters (kernel 5.7) are named after a size as well: `2MB.rsvd`.
    let sizes = sizes.into_iter().filter(|size| !size.contains('.'));
    sizes
        .map(|size| {
            let number = |name: &str| files::number(dir, &format!("hugetlb.{size}.{name}"), 0);
            let mut stat = HugetlbStat::new();
            stat.usage = number("usage_in_bytes")?;
            stat.max = number("max_usage_in_bytes")?;
            stat.failcnt = number("failcnt")?;
            stat.pagesize = size;
            Ok(stat)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_entry_for_each_size() {
        let dir = tempfile::tempdir().unwrap();
        for size in ["2MB", "1GB", "2MB.rsvd"] {
            for (name, value) in [
                ("usage_in_bytes", 1),
                ("max_usage_in_bytes", 2),
                ("failcnt", 3),
            ] {
                let path = dir.path().join(format!("hugetlb.{size}.{name}"));
                fs::write(path, format!("{value}\n")).unwrap();
            }
        }
        let stats = read(dir.path()).unwrap();
        let shown: Vec<_> = stats
            .iter()
            .map(|s| (s.pagesize.as_str(), s.usage, s.max, s.failcnt))
            .collect();
        assert_eq!(shown, [("1GB", 1, 2, 3), ("2MB", 1, 2, 3)]);
    }
}
