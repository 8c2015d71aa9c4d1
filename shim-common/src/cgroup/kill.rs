//! Killing everything in a container's cgroup.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Cgroup, FreezeState, Version, files, tree};

/// How many processes are held by descriptor at a time: far below any limit of open files.
const BATCH: usize = 64;

/// The longest wait for one process before the list is read again.
const ROUND: Duration = Duration::from_millis(100);

/// Every process of `dir` and below. Numbers of 0 are processes outside of our pid namespace.
pub(super) fn processes(dir: &Path, to: &mut BTreeSet<i32>) -> io::Result<()> {
    tree::visit(dir, &mut |dir| {
        // A threaded cgroup refuses its list (EOPNOTSUPP); its processes stand in the domain above.
        if let Some(text) = files::optional(files::read(dir, "cgroup.procs"))? {
            to.extend(
                text.lines()
                    .filter_map(|line| line.trim().parse::<i32>().ok()),
            );
        }
        Ok(())
    })
}

/// Kills until the cgroup is empty or `patience` is over. See [`Cgroup::kill_all`].
pub(super) fn kill_all(cgroup: &Cgroup, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    if cgroup.version == Version::V2 {
        let dir = cgroup.unified_dir()?;
        match files::write_raw(dir, "cgroup.kill", "1") {
            Ok(()) => return wait_until_empty(dir, deadline),
            // cgroup.kill came with kernel 5.14 and does not work on threaded cgroups.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => {
            }
            Err(error) => return Err(files::with_path(&dir.join("cgroup.kill"), &error)),
        }
        if !dir.exists() {
            return Ok(());
        }
    }
    kill_one_by_one(cgroup, deadline)
}

/// Kills what is listed until nothing is. New processes may be forked meanwhile; each round takes
/// them too, and a process killed leaves no child behind that is not in the next list.
pub(super) fn kill_one_by_one(cgroup: &Cgroup, deadline: Instant) -> io::Result<()> {
    loop {
        let listed = match cgroup.processes() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let listed: Vec<i32> = listed.into_iter().filter(|pid| *pid > 0).collect();
        if listed.is_empty() {
            return Ok(());
        }
        let mut waited_for = None;
        for batch in listed.chunks(BATCH) {
            waited_for = kill_batch(cgroup, batch)?.or(waited_for);
        }
        // Frozen by cgroup v1, a process keeps its SIGKILL until it is thawed.
        if matches!(
            cgroup.freeze_state(),
            Ok(FreezeState::Frozen | FreezeState::Freezing)
        ) {
            cgroup.thaw()?;
        }
        let now = Instant::now();
        if now >= deadline {
            let count = listed.len();
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("{}: {count} processes survive SIGKILL", cgroup.name()),
            ));
        }
        if let Some(pidfd) = waited_for {
            sys::pidfd::wait_readable(&pidfd, ROUND.min(deadline - now))?;
        }
    }
}

/// Sends SIGKILL to those of `pids` that are still in the cgroup once they are held by descriptor:
/// between reading the list and opening, a number may have passed to a stranger. Returns one of
/// those that were killed, to wait for.
fn kill_batch(cgroup: &Cgroup, pids: &[i32]) -> io::Result<Option<OwnedFd>> {
    let mut held = Vec::with_capacity(pids.len());
    for pid in pids {
        match sys::pidfd::open(*pid) {
            Ok(pidfd) => held.push((*pid, pidfd)),
            // EINVAL: a thread that is no leader, which older kernels list for threaded cgroups.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {}
            Err(error) => return Err(error),
        }
    }
    let still_there: BTreeSet<i32> = match cgroup.processes() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?.into_iter().collect(),
    };
    let mut killed = None;
    for (pid, pidfd) in held {
        if still_there.contains(&pid) {
            match sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL) {
                Err(error) if !sys::pidfd::is_gone(&error) => return Err(error),
                _ => killed = Some(pidfd),
            }
        }
    }
    Ok(killed)
}

/// Waits until `cgroup.events` says that nothing is left; the kernel reports changes of that file
/// as POLLPRI.
fn wait_until_empty(dir: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        // Opened anew in each round: a poll reports changes since the file was last read.
        let path = dir.join("cgroup.events");
        let file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| files::with_path(&path, &error))?,
        };
        match files::optional(io::read_to_string(&file).map_err(|e| files::with_path(&path, &e)))? {
            Some(text) if files::value_of(&text, "populated") == Some(1) => {}
            _ => return Ok(()),
        }
        let now = Instant::now();
        if now >= deadline {
            let text = format!("{}: processes survive cgroup.kill", dir.display());
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        let left = ROUND.min(deadline - now).as_millis();
        sys::pipe::poll_fd(
            &file,
            libc::POLLPRI,
            i32::try_from(left).unwrap_or(i32::MAX),
        )?;
    }
}
