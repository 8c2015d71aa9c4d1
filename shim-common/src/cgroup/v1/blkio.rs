//! The `blkio` controller: the figures of the CFQ scheduler on kernels that have it (before 5.0),
//! else those of the throttling layer, which sees every request.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics::{BlkIOEntry, BlkIOStat};

use super::super::files;

/// Device names by major and minor number.
type Devices = HashMap<(u64, u64), String>;

/// Always an answer, with empty lists when nothing was read or written. Device names come from
/// `<proc>/diskstats`; a device that is gone has an empty name.
pub(super) fn read(dir: &Path, proc: &Path) -> io::Result<BlkIOStat> {
    let devices = devices(proc);
    let entries = |name: &str| entries(dir, name, &devices);
    let mut stat = BlkIOStat::new();
    stat.sectors_recursive = entries("blkio.sectors_recursive")?;
    stat.io_service_bytes_recursive = entries("blkio.io_service_bytes_recursive")?;
    stat.io_serviced_recursive = entries("blkio.io_serviced_recursive")?;
    stat.io_queued_recursive = entries("blkio.io_queued_recursive")?;
    stat.io_service_time_recursive = entries("blkio.io_service_time_recursive")?;
    stat.io_wait_time_recursive = entries("blkio.io_wait_time_recursive")?;
    stat.io_merged_recursive = entries("blkio.io_merged_recursive")?;
    stat.io_time_recursive = entries("blkio.time_recursive")?;
    let by_scheduler = [
        &stat.sectors_recursive,
        &stat.io_service_bytes_recursive,
        &stat.io_serviced_recursive,
        &stat.io_queued_recursive,
        &stat.io_service_time_recursive,
        &stat.io_wait_time_recursive,
        &stat.io_merged_recursive,
        &stat.io_time_recursive,
    ];
    // CFQ may be built in while no device of this container uses it: its files are then empty.
    if by_scheduler.iter().all(|list| list.is_empty()) {
        stat.io_serviced_recursive = throttled(dir, "io_serviced", &devices)?;
        stat.io_service_bytes_recursive = throttled(dir, "io_service_bytes", &devices)?;
    }
    Ok(stat)
}

/// The recursive file of the throttling layer came with kernel 5.0; before it there is the plain
/// one.
fn throttled(dir: &Path, name: &str, devices: &Devices) -> io::Result<Vec<BlkIOEntry>> {
    let recursive = format!("blkio.throttle.{name}_recursive");
    if dir.join(&recursive).exists() {
        return entries(dir, &recursive, devices);
    }
    entries(dir, &format!("blkio.throttle.{name}"), devices)
}

/// The lines `MAJOR:MINOR [OPERATION] VALUE`. The grand total at the end has no device and is left
/// out.
fn entries(dir: &Path, name: &str, devices: &Devices) -> io::Result<Vec<BlkIOEntry>> {
    let text = files::optional(files::read(dir, name))?.unwrap_or_default();
    Ok(text
        .lines()
        .filter_map(|line| entry(line, devices))
        .collect())
}

fn entry(line: &str, devices: &Devices) -> Option<BlkIOEntry> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let (second, third) = (words.next()?, words.next());
    let (op, value) = third.map_or(("", second), |value| (second, value));
    let mut entry = BlkIOEntry::new();
    entry.major = major.parse().ok()?;
    entry.minor = minor.parse().ok()?;
    entry.op = op.to_owned();
    entry.value = value.parse().ok()?;
    entry.device = devices
        .get(&(entry.major, entry.minor))
        .cloned()
        .unwrap_or_default();
    Some(entry)
}

fn devices(proc: &Path) -> Devices {
    let text = fs::read_to_string(proc.join("diskstats")).unwrap_or_default();
    let mut devices = Devices::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(major), Some(minor), Some(name)) = (words.next(), words.next(), words.next())
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            devices
                .entry((major, minor))
                .or_insert_with(|| format!("/dev/{name}"));
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(list: &[BlkIOEntry]) -> Vec<String> {
        list.iter()
            .map(|e| format!("{}:{} {} {} {}", e.major, e.minor, e.device, e.op, e.value))
            .collect()
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn throttling_figures_when_there_is_no_cfq() {
        let dir = folder(&[
            (
                "diskstats",
                "   8       0 sda 1 2 3\n 254       1 vda1 4 5 6\n",
            ),
            (
                "blkio.throttle.io_serviced_recursive",
                "254:1 Read 5\n254:1 Total 5\nTotal 5\n",
            ),
            ("blkio.throttle.io_serviced", "254:1 Read 1\nTotal 1\n"),
            (
                "blkio.throttle.io_service_bytes",
                "9:9 Write 4096\nTotal 4096\n",
            ),
        ]);
        let stat = read(dir.path(), dir.path()).unwrap();
        assert_eq!(
            show(&stat.io_serviced_recursive),
            ["254:1 /dev/vda1 Read 5", "254:1 /dev/vda1 Total 5"]
        );
        assert_eq!(show(&stat.io_service_bytes_recursive), ["9:9  Write 4096"]);
    }

    #[test]
    fn cfq_figures_come_first() {
        let dir = folder(&[
            ("diskstats", "   8       0 sda 1 2 3\n"),
            ("blkio.sectors_recursive", "8:0 16\n"),
            ("blkio.time_recursive", "8:0 77\n"),
            (
                "blkio.io_serviced_recursive",
                "8:0 Read 2\n8:0 Total 2\nTotal 2\n",
            ),
            ("blkio.throttle.io_serviced", "8:0 Read 9\nTotal 9\n"),
        ]);
        let stat = read(dir.path(), dir.path()).unwrap();
        assert_eq!(show(&stat.sectors_recursive), ["8:0 /dev/sda  16"]);
        assert_eq!(show(&stat.io_time_recursive), ["8:0 /dev/sda  77"]);
        assert_eq!(show(&stat.io_serviced_recursive).len(), 2);
        assert_eq!(stat.io_serviced_recursive[0].value, 2);
    }

    #[test]
    fn nothing_read_nothing_shown() {
        let dir = folder(&[("blkio.throttle.io_serviced_recursive", "Total 0\n")]);
        let stat = read(dir.path(), dir.path()).unwrap();
        assert!(stat.io_serviced_recursive.is_empty());
    }
}
