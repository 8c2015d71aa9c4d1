//! Noticing that the kernel's OOM killer struck a container.
//!
//! What counts is that the counter `oom_kill` grew (DESIGN rule 10); the kernel's notices only say
//! when to look. On v2 that is polling `memory.events` for changes. (inotify tells them too, but one
//! user may have 128 inotify instances, and a node has more shims than that.) On v1 it is an eventfd
//! registered with `memory.oom_control`, which fires for every OOM situation in the cgroup or an
//! ancestor, and once more when the cgroup is removed.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use sys::eventfd::EventFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

use super::{Version, files, v1, v2};
use crate::watch::watch;

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
    /// The cgroup is removed: nothing more will come. The kernel tells of it only on v1; on v2 it is
    /// found when something else made us look.
    Gone,
}

/// Watches one container's cgroup. Costs a descriptor here (and, on v1, one reference in the
/// kernel) and no timer while nothing happens.
#[derive(Debug)]
pub struct OomWatch {
    dir: Box<Path>,
    seen: u64,
    notices: Notices,
    /// Which of the second looks comes next; at the end of the list none is due.
    look: usize,
}

/// Where the notices come from.
#[derive(Debug)]
enum Notices {
    /// The eventfd: like a pipe, something to read from.
    V1(Receiver),
    /// `memory.events`, or another file whose changes the kernel tells to pollers.
    V2(AsyncFd<File>),
}

impl OomWatch {
    /// Starts watching the memory cgroup `dir`. The count starts at zero, since the cgroup of a new
    /// container is new: what happened before the watch was armed is reported first.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone or has no memory controller; the error names the file.
    pub(super) fn new(version: Version, dir: &Path) -> io::Result<Self> {
        let notices = match version {
            Version::V1 => Notices::V1(Receiver::from_owned_fd_unchecked(register(dir)?)?),
            Version::V2 => Notices::V2(changes(&dir.join(v2::MEMORY_EVENTS))?),
        };
        Ok(Self {
            dir: dir.into(),
            seen: 0,
            notices,
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
        let kills = match &self.notices {
            Notices::V1(_) => v1::oom_kills(&self.dir)?,
            Notices::V2(file) => {
                let text = reread(file)
                    .map_err(|error| files::with_path(&self.dir.join(v2::MEMORY_EVENTS), &error))?;
                v2::oom_kills_in(&text)
            }
        };
        if kills > self.seen {
            self.seen = kills;
            return Ok(Some(OomChange::Grew(kills)));
        }
        Ok(None)
    }

    async fn notice_or_second_look(&mut self) -> io::Result<()> {
        let from = match &self.notices {
            Notices::V1(from) => from,
            // Here the victim is counted before the notice: one look is enough.
            Notices::V2(file) => return change(file).await,
        };
        let Some(delay) = SECOND_LOOKS.get(self.look) else {
            notice(from).await?;
            self.look = 0;
            return Ok(());
        };
        tokio::select! {
            biased;
            noticed = notice(from) => {
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

/// Opens a file of cgroupfs to be told of its changes: the kernel says `POLLPRI` when the file has
/// changed since it was last read through this descriptor (`Documentation/admin-guide/cgroup-v2.rst`,
/// "Core Interface Files", file modified events).
pub(super) fn changes(path: &Path) -> io::Result<AsyncFd<File>> {
    let file = File::open(path).map_err(|error| files::with_path(path, &error))?;
    watch(file, Interest::PRIORITY).map_err(|error| files::with_path(path, &error))
}

/// Waits until the file has changed. The readiness is taken before the caller reads, so that a
/// change in between is told again.
pub(super) async fn change(file: &AsyncFd<File>) -> io::Result<()> {
    file.ready(Interest::PRIORITY).await?.clear_ready();
    Ok(())
}

/// The whole text of a file, from its beginning.
pub(super) fn reread(file: &AsyncFd<File>) -> io::Result<String> {
    let mut file: &File = file.get_ref();
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}
