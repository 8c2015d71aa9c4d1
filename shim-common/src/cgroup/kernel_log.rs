//! OOM kills as the kernel's log tells them: for a cgroup that was removed before its counter could be
//! read, as systemd removes a scope as soon as its last process is dead. On a busy machine it is
//! quicker than we are, and then the log is the only place that still knows.
//!
//! Two lines of the kernel count (`mm/oom_kill.c`, Linux 5.0 and later): the summary, which names the
//! cgroup and the victim and is left out when too much is logged at once, and the one for each
//! process that is killed, which names only the process.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// How much of the log is read, in bytes: some fifteen OOM kills with all that is told of each. So much
/// memory at once comes from the kernel and goes back to it when it is freed.
const SIZE: usize = 256 << 10;

/// How far the clock of the log may be from the one that is read here.
const SLACK: Duration = Duration::from_secs(1);

/// The number of the first pid namespace's file (`PROC_PID_INIT_INO` of the kernel).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A moment before which the log does not matter.
#[derive(Debug, Clone, Copy)]
pub struct LogTime(Duration);

impl LogTime {
    /// Now.
    pub fn now() -> Self {
        // Without a clock all of the log counts.
        Self(sys::klog::now().unwrap_or_default())
    }
}

/// How many processes the kernel has killed for memory since then that were in the cgroup `path` (as
/// in `/proc/PID/cgroup`) or below, or were `dead`.
///
/// # Errors
/// `PermissionDenied` without the right to read the log.
pub(super) fn oom_kills(since: LogTime, path: Option<&str>, dead: Option<i32>) -> io::Result<u64> {
    let log = sys::klog::newest(SIZE)?;
    // The log has the pids of the first namespace, which are not ours in any other.
    let own = fs::metadata("/proc/self/ns/pid").map(|found| found.ino());
    let dead = dead.filter(|_| own.is_ok_and(|own| own == FIRST_PID_NAMESPACE));
    let victims = victims(&String::from_utf8_lossy(&log), since, path, dead);
    Ok(victims.len() as u64)
}

/// The pids of those killed.
fn victims(log: &str, since: LogTime, path: Option<&str>, dead: Option<i32>) -> BTreeSet<i32> {
    let from = since.0.saturating_sub(SLACK);
    log.lines()
        .filter_map(|line| kernels(line))
        .filter(|(at, _)| at.is_none_or(|at| at >= from))
        .filter_map(|(_, text)| match summary(text) {
            Some((cgroup, pid)) => path.is_some_and(|path| is_in(cgroup, path)).then_some(pid),
            None => killed(text).filter(|pid| dead == Some(*pid)),
        })
        .collect()
}

/// When a line was written, if it says so, and its text. `None` for lines that are not the kernel's
/// own: whoever may write to `/dev/kmsg` gets a facility.
fn kernels(line: &str) -> Option<(Option<Duration>, &str)> {
    let (priority, text) = line.strip_prefix('<')?.split_once('>')?;
    if priority.parse::<u32>().ok()? > 7 {
        return None;
    }
    let stamped = text
        .strip_prefix('[')
        .and_then(|text| text.split_once(']'))
        .and_then(|(time, text)| {
            let (seconds, _) = time.trim_start().split_once('.')?;
            Some((Duration::from_secs(seconds.parse().ok()?), text))
        });
    Some(match stamped {
        Some((time, text)) => (Some(time), text),
        None => (None, text),
    })
}

/// The victim's cgroup and pid, of `oom-kill:constraint=…,task_memcg=CGROUP,task=NAME,pid=PID,uid=…`.
fn summary(text: &str) -> Option<(&str, i32)> {
    let (_, text) = text.split_once("oom-kill:constraint=")?;
    let (_, text) = text.split_once(",task_memcg=")?;
    let (cgroup, _) = text.rsplit_once(",task=")?;
    let (_, pid) = text.rsplit_once(",pid=")?;
    let (pid, _) = pid.split_once(',')?;
    Some((cgroup, pid.parse().ok()?))
}

/// The victim's pid, of `… out of memory: Killed process PID (NAME) …`.
fn killed(text: &str) -> Option<i32> {
    let (_, text) = text.split_once(": Killed process ")?;
    let (pid, _) = text.split_once(" (")?;
    pid.parse().ok()
}

fn is_in(cgroup: &str, path: &str) -> bool {
    let below = cgroup.strip_prefix(path);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
<4>[   11.900000] dd invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
<6>[   12.000001] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=ctr-c2.scope,mems_allowed=0,oom_memcg=/w.slice/ctr-c2.scope,task_memcg=/w.slice/ctr-c2.scope,task=dd,pid=369,uid=0
<3>[   12.000002] Memory cgroup out of memory: Killed process 369 (dd) total-vm:67796kB, anon-rss:16056kB
<6>[   13.5][   T99] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,oom_memcg=/w.slice,task_memcg=/w.slice/ctr-c2.scope/inner,task=a,task=b,pid=400,uid=0
<3>[   14.0] Memory cgroup out of memory: Killed process 401 (sh) total-vm:1kB
<3>[   15.0] Out of memory: Killed process 402 (sh) total-vm:1kB
<14>[   16.0] Out of memory: Killed process 403 (sh) total-vm:1kB
<6>[   17.0] oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/w.slice/ctr-c2.scope2,task_memcg=/w.slice/ctr-c2.scope2,task=dd,pid=404,uid=0
<6>oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task_memcg=/w.slice/c3,task=dd,pid=405,uid=0
<6>[   18.0] oom-kill:constraint=
<
";

    fn found(since: u64, path: &str, dead: Option<i32>) -> Vec<i32> {
        let since = LogTime(Duration::from_secs(since));
        victims(LOG, since, Some(path), dead).into_iter().collect()
    }

    #[test]
    fn a_kill_is_told_by_its_cgroup_or_by_who_died_and_once() {
        let nowhere = victims(LOG, LogTime(Duration::ZERO), None, Some(401));
        assert_eq!(nowhere.into_iter().collect::<Vec<_>>(), [401]);
        assert_eq!(found(0, "/w.slice/ctr-c2.scope", None), [369, 400]);
        assert_eq!(found(0, "/w.slice/ctr-c2.scope", Some(369)), [369, 400]);
        assert_eq!(
            found(0, "/w.slice/ctr-c2.scope", Some(401)),
            [369, 400, 401]
        );
        assert_eq!(found(0, "/other", Some(402)), [402]);
        assert_eq!(found(0, "/w.slice/c3", None), [405]);
    }

    #[test]
    fn what_is_older_elsewhere_or_not_the_kernels_is_not() {
        assert_eq!(found(14, "/w.slice/ctr-c2.scope", None), [400]);
        assert_eq!(found(15, "/w.slice/ctr-c2.scope", Some(401)), [401]);
        assert!(found(16, "/w.slice/ctr-c2.scope", Some(401)).is_empty());
        assert!(found(0, "/w.slice/ctr", Some(403)).is_empty());
        assert!(found(0, "/ctr-c2.scope", None).is_empty());
    }
}
