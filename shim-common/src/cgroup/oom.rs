//! Noticing that the kernel's OOM killer struck a container.
//!
//! What counts is that the counter `oom_kill` grew (DESIGN rule 10); the kernel's notices only say
//! when to look. On v2 that is inotify on `memory.events`. On v1 it is an eventfd registered with
//! `memory.oom_control`, which fires for every OOM situation in the cgroup or an ancestor, and once
//! more when the cgroup is removed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use sys::eventfd::EventFd;
use sys::inotify::Inotify;
use tokio::net::unix::pipe::Receiver;

use super::{Version, files, v1, v2};

/// On v1 the notice comes *before* the victim is chosen and counted (`mem_cgroup_oom` of the
/// kernel): a look at once finds nothing, and with this list empty the OOM test on a live kernel
/// fails. These are the further looks after a notice that found nothing; between notices there is
/// no timer.
const SECOND_LOOKS: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1500),
];

/// What [`OomWatch::changed`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomChange {
    /// More processes were killed; how many there are now since the cgroup was made.
    Grew(u64),
    /// The cgroup is removed, or (v2) has no process left: nothing more will come.
    Gone,
}

/// Watches one container's cgroup. Costs a descriptor here (and, on v1, one reference in the
/// kernel) and no timer while nothing happens.
#[derive(Debug)]
pub struct OomWatch {
    version: Version,
    dir: Box<Path>,
    seen: u64,
    /// The eventfd or inotify descriptor: like a pipe, something to read notices from.
    notices: Receiver,
    /// Which of the second looks comes next; at the end of the list none is due.
    look: usize,
}

impl OomWatch {
    /// Starts watching the memory cgroup `dir`. The count starts at zero, since the cgroup of a new
    /// container is new: what happened before the watch was armed is reported first.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone or has no memory controller; the error names the file.
    pub(super) fn new(version: Version, dir: &Path) -> io::Result<Self> {
        let notices = match version {
            Version::V1 => register(dir)?,
            Version::V2 => inotify(dir)?,
        };
        Ok(Self {
            version,
            dir: dir.into(),
            seen: 0,
            notices: Receiver::from_owned_fd_unchecked(notices)?,
            look: SECOND_LOOKS.len(),
        })
    }

    /// How many kills have been reported so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Notes that `kills` have been reported by other means (read at an exit), so that they are not
    /// reported again.
    pub fn mark_seen(&mut self, kills: u64) {
        self.seen = self.seen.max(kills);
    }

    /// Waits until the OOM killer struck again or the cgroup is gone. May be dropped at any point
    /// and called again. Needs a runtime with I/O and time enabled.
    pub async fn changed(&mut self) -> OomChange {
        loop {
            match self.compare() {
                Ok(Some(change)) => return change,
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return OomChange::Gone,
                // The next notice may find the file readable again.
                Err(error) => log::warn!("cannot read the OOM counter: {error}"),
            }
            if let Err(error) = self.notice_or_second_look().await {
                log::warn!("OOM watch of {} ended: {error}", self.dir.display());
                return OomChange::Gone;
            }
        }
    }

    fn compare(&mut self) -> io::Result<Option<OomChange>> {
        let (empty, kills) = match self.version {
            Version::V1 => (false, v1::oom_kills(&self.dir)?),
            // Emptiness first: in a cgroup that was empty before the count was read, nothing can be
            // killed after it.
            Version::V2 => (!v2::populated(&self.dir)?, v2::oom_kills(&self.dir)?),
        };
        if kills > self.seen {
            self.seen = kills;
            return Ok(Some(OomChange::Grew(kills)));
        }
        Ok(empty.then_some(OomChange::Gone))
    }

    async fn notice_or_second_look(&mut self) -> io::Result<()> {
        let Some(delay) = SECOND_LOOKS.get(self.look) else {
            notice(&self.notices).await?;
            self.look = match self.version {
                Version::V1 => 0,
                Version::V2 => SECOND_LOOKS.len(),
            };
            return Ok(());
        };
        tokio::select! {
            biased;
            noticed = notice(&self.notices) => {
                noticed?;
                self.look = 0;
            }
            () = tokio::time::sleep(*delay) => self.look += 1,
        }
        Ok(())
    }
}

/// Takes what notices there are. Their content does not matter: the counters are read anyway. Only
/// a first reading takes anything, so a caller that gives up in between loses nothing.
async fn notice(from: &Receiver) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut buffer = [0_u8; 1024];
        match from.try_read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return other.map(drop),
        }
    }
}

/// Registers an eventfd for OOM notices (`Documentation/admin-guide/cgroup-v1/memory.rst`, section
/// 10). The kernel keeps its own references; closing the eventfd takes the registration back.
fn register(dir: &Path) -> io::Result<OwnedFd> {
    let path = dir.join("memory.oom_control");
    let control = File::open(&path).map_err(|error| files::with_path(&path, &error))?;
    let event = EventFd::new()?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    files::write(dir, "cgroup.event_control", &line)?;
    Ok(event.into())
}

fn inotify(dir: &Path) -> io::Result<OwnedFd> {
    let inotify = Inotify::new()?;
    inotify.add_watch(&dir.join("memory.events"), libc::IN_MODIFY)?;
    // Emptiness and removal: the kernel says nothing of them through memory.events.
    inotify.add_watch(&dir.join("cgroup.events"), libc::IN_MODIFY)?;
    inotify.add_watch(dir, libc::IN_DELETE_SELF)?;
    Ok(inotify.into())
}
