//! The `io` controller.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{IOEntry, IOStat};

use super::{files, pressure};

/// One entry per device the cgroup has used, and the pressure.
pub(super) fn read(dir: &Path) -> std::io::Result<IOStat> {
    let text = files::optional(files::read(dir, "io.stat"))?.unwrap_or_default();
    let mut stat = IOStat::new();
    stat.usage = text.lines().filter_map(entry).collect();
    stat.psi = pressure::read(dir, "io.pressure")?.into();
    Ok(stat)
}

/// Reads `MAJOR:MINOR key=value ...`. A device without any figure (a kernel lists it once a policy
/// was set for it) is no entry.
fn entry(line: &str) -> Option<IOEntry> {
    let (device, figures) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let mut entry = IOEntry::new();
    entry.major = major.parse().ok()?;
    entry.minor = minor.parse().ok()?;
    let mut any = false;
    for (key, value) in figures
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        let Ok(value) = value.parse() else { continue };
        any = true;
        match key {
            "rbytes" => entry.rbytes = value,
            "wbytes" => entry.wbytes = value,
            "rios" => entry.rios = value,
            "wios" => entry.wios = value,
            _ => {}
        }
    }
    any.then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_figures_is_no_entry() {
        assert!(entry("8:0").is_none());
        assert!(entry("8:0 ").is_none());
        assert!(entry("odd rbytes=1").is_none());
        let entry =
            entry("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7").unwrap();
        assert_eq!((entry.major, entry.minor), (8, 16));
        assert_eq!(
            (entry.rbytes, entry.wbytes, entry.rios, entry.wios),
            (1, 2, 3, 4)
        );
    }
}
