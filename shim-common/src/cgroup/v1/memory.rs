//! The `memory` controller: `memory.stat`, the four accounted kinds (memory, memory and swap,
//! kernel, kernel TCP buffers), and the OOM state.

use std::io;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics::{MemoryEntry, MemoryOomControl, MemoryStat};

use super::super::files;

/// All figures in bytes except those `memory.stat` counts in pages or events; `None` when the
/// cgroup has no memory files.
pub(super) fn read(dir: &Path) -> io::Result<Option<MemoryStat>> {
    let Some(text) = files::optional(files::read(dir, "memory.stat"))? else {
        return Ok(None);
    };
    let mut stat = MemoryStat::new();
    for (key, value) in files::pairs(&text) {
        if let Some(field) = field(&mut stat, key) {
            *field = value;
        }
    }
    // Without swap accounting there are no memsw files, and a kernel may be built without the
    // kernel counters: that entry is then all zeros, the others are not touched by it.
    stat.usage = Some(entry(dir, "memory")?).into();
    stat.swap = Some(entry(dir, "memory.memsw")?).into();
    stat.kernel = Some(entry(dir, "memory.kmem")?).into();
    stat.kernel_tcp = Some(entry(dir, "memory.kmem.tcp")?).into();
    Ok(Some(stat))
}

/// Whether the OOM killer is off, whether the cgroup is under OOM now, and how often it killed
/// (this cgroup alone); `None` when there is no such file.
pub(super) fn read_oom_control(dir: &Path) -> io::Result<Option<MemoryOomControl>> {
    let Some(text) = files::optional(files::read(dir, "memory.oom_control"))? else {
        return Ok(None);
    };
    let mut control = MemoryOomControl::new();
    for (key, value) in files::pairs(&text) {
        match key {
            "oom_kill_disable" => control.oom_kill_disable = value,
            "under_oom" => control.under_oom = value,
            "oom_kill" => control.oom_kill = value,
            _ => {}
        }
    }
    Ok(Some(control))
}

fn entry(dir: &Path, kind: &str) -> io::Result<MemoryEntry> {
    let number = |name: &str| files::number(dir, &format!("{kind}.{name}"), 0);
    let mut entry = MemoryEntry::new();
    entry.usage = number("usage_in_bytes")?;
    entry.max = number("max_usage_in_bytes")?;
    entry.failcnt = number("failcnt")?;
    entry.limit = number("limit_in_bytes")?;
    Ok(entry)
}

/// Which field a key of `memory.stat` belongs to.
fn field<'a>(stat: &'a mut MemoryStat, key: &str) -> Option<&'a mut u64> {
    Some(match key {
        "cache" => &mut stat.cache,
        "rss" => &mut stat.rss,
        "rss_huge" => &mut stat.rss_huge,
        "mapped_file" => &mut stat.mapped_file,
        "dirty" => &mut stat.dirty,
        "writeback" => &mut stat.writeback,
        "pgpgin" => &mut stat.pg_pg_in,
        "pgpgout" => &mut stat.pg_pg_out,
        "pgfault" => &mut stat.pg_fault,
        "pgmajfault" => &mut stat.pg_maj_fault,
        "inactive_anon" => &mut stat.inactive_anon,
        "active_anon" => &mut stat.active_anon,
        "inactive_file" => &mut stat.inactive_file,
        "active_file" => &mut stat.active_file,
        "unevictable" => &mut stat.unevictable,
        "hierarchical_memory_limit" => &mut stat.hierarchical_memory_limit,
        "hierarchical_memsw_limit" => &mut stat.hierarchical_swap_limit,
        "total_cache" => &mut stat.total_cache,
        "total_rss" => &mut stat.total_rss,
        "total_rss_huge" => &mut stat.total_rss_huge,
        "total_mapped_file" => &mut stat.total_mapped_file,
        "total_dirty" => &mut stat.total_dirty,
        "total_writeback" => &mut stat.total_writeback,
        "total_pgpgin" => &mut stat.total_pg_pg_in,
        "total_pgpgout" => &mut stat.total_pg_pg_out,
        "total_pgfault" => &mut stat.total_pg_fault,
        "total_pgmajfault" => &mut stat.total_pg_maj_fault,
        "total_inactive_anon" => &mut stat.total_inactive_anon,
        "total_active_anon" => &mut stat.total_active_anon,
        "total_inactive_file" => &mut stat.total_inactive_file,
        "total_active_file" => &mut stat.total_active_file,
        "total_unevictable" => &mut stat.total_unevictable,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_four_kinds_are_read_each_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "memory.stat",
            "cache 1\nrss 2\nhierarchical_memory_limit 99\ntotal_unevictable 3\n",
        );
        for (kind, base) in [("memory", 10), ("memory.kmem", 30), ("memory.kmem.tcp", 40)] {
            write(
                &format!("{kind}.usage_in_bytes"),
                &format!("{}\n", base + 1),
            );
            write(
                &format!("{kind}.max_usage_in_bytes"),
                &format!("{}\n", base + 2),
            );
            write(&format!("{kind}.failcnt"), &format!("{}\n", base + 3));
            write(&format!("{kind}.limit_in_bytes"), "9223372036854771712\n");
        }
        let stat = read(dir.path()).unwrap().unwrap();
        assert_eq!((stat.cache, stat.rss, stat.total_unevictable), (1, 2, 3));
        assert_eq!(stat.hierarchical_memory_limit, 99);
        let entry = |entry: &MemoryEntry| (entry.usage, entry.max, entry.failcnt, entry.limit);
        assert_eq!(entry(stat.usage()), (11, 12, 13, 9_223_372_036_854_771_712));
        assert_eq!(entry(stat.swap()), (0, 0, 0, 0), "no swap accounting");
        assert_eq!(
            entry(stat.kernel()),
            (31, 32, 33, 9_223_372_036_854_771_712)
        );
        assert_eq!(
            entry(stat.kernel_tcp()),
            (41, 42, 43, 9_223_372_036_854_771_712)
        );
    }

    #[test]
    fn oom_state() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_oom_control(dir.path()).unwrap().is_none());
        let text = "oom_kill_disable 0\nunder_oom 1\noom_kill 4\n";
        fs::write(dir.path().join("memory.oom_control"), text).unwrap();
        let control = read_oom_control(dir.path()).unwrap().unwrap();
        assert_eq!(
            (
                control.oom_kill_disable,
                control.under_oom,
                control.oom_kill
            ),
            (0, 1, 4)
        );
    }
}
