//! The `pids` controller.

use std::io;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics::PidsStat;

use super::super::files;

/// How many tasks there are and may be. No limit is shown as 0 on v1, as the Go shims do.
pub(super) fn read(dir: &Path) -> io::Result<Option<PidsStat>> {
    if files::optional(files::read(dir, "pids.current"))?.is_none() {
        return Ok(None);
    }
    let mut stat = PidsStat::new();
    stat.current = files::number(dir, "pids.current", 0)?;
    stat.limit = files::number(dir, "pids.max", 0)?;
    Ok(Some(stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn no_limit_is_zero() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        fs::write(dir.path().join("pids.current"), "3\n").unwrap();
        fs::write(dir.path().join("pids.max"), "max\n").unwrap();
        let stat = read(dir.path()).unwrap().unwrap();
        assert_eq!((stat.current, stat.limit), (3, 0));
        fs::write(dir.path().join("pids.max"), "512\n").unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap().limit, 512);
    }
}
