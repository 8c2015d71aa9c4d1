//! File watches (inotify(7)), by which cgroup v2 reports changes of memory.events and
//! cgroup.events.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify as NixInotify};

use crate::errno::context;

/// Names one watch in the events of its [`Inotify`]. Numbers are not used again in its life.
pub use nix::sys::inotify::WatchDescriptor as Watch;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where. A queue that overflowed (`IN_Q_OVERFLOW` in the mask) concerns every watch and
    /// names none.
    pub watch: Watch,
    /// `IN_` bits of libc; `IN_IGNORED` is the last event of a watch, whose file is gone.
    pub mask: u32,
    /// The entry of a watched folder, if the event is about one.
    pub name: Option<OsString>,
}

/// A nonblocking, close-on-exec set of watches.
#[derive(Debug)]
pub struct Inotify(NixInotify);

impl Inotify {
    /// A set without watches. EMFILE past /proc/sys/fs/inotify/max_user_instances: use one set
    /// for many files.
    pub fn new() -> io::Result<Self> {
        NixInotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map(Self)
            .map_err(|errno| context(&errno.into(), "make an inotify set"))
    }

    /// Watches `path` for the `IN_` bits of `mask` (`IN_MODIFY` for the files of cgroup v2). A
    /// second watch of one file replaces the mask of the first and has its name.
    pub fn add_watch(&self, path: &Path, mask: u32) -> io::Result<Watch> {
        self.0
            .add_watch(path, AddWatchFlags::from_bits_retain(mask))
            .map_err(|errno| context(&errno.into(), format_args!("watch {}", path.display())))
    }

    /// Ends a watch. One that has ended by itself, with its file, is fine.
    pub fn remove_watch(&self, watch: Watch) -> io::Result<()> {
        match self.0.rm_watch(watch) {
            Ok(()) | Err(nix::Error::EINVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes events that wait, at most 4 kB of them at once; none when none wait.
    pub fn read_events(&self) -> io::Result<Vec<Event>> {
        loop {
            return match self.0.read_events() {
                Ok(events) => Ok(events
                    .into_iter()
                    .map(|event| Event {
                        watch: event.wd,
                        mask: event.mask.bits(),
                        name: event.name,
                    })
                    .collect()),
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::EAGAIN) => Ok(Vec::new()),
                Err(errno) => Err(errno.into()),
            };
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl From<Inotify> for OwnedFd {
    fn from(inotify: Inotify) -> Self {
        inotify.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_the_end_of_a_file_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.events");
        std::fs::write(&path, "").unwrap();
        let inotify = Inotify::new().unwrap();
        assert!(crate::process::is_cloexec(&inotify).unwrap());
        let watch = inotify.add_watch(&path, libc::IN_MODIFY).unwrap();
        assert_eq!(inotify.read_events().unwrap(), []);
        std::fs::write(&path, "oom_kill 1").unwrap();
        let events = inotify.read_events().unwrap();
        assert!(
            events
                .iter()
                .all(|event| event.watch == watch && event.mask == libc::IN_MODIFY)
        );
        assert!(!events.is_empty());
        std::fs::remove_file(&path).unwrap();
        let last = inotify.read_events().unwrap().pop().unwrap();
        assert_eq!((last.watch, last.mask), (watch, libc::IN_IGNORED));
        inotify.remove_watch(watch).unwrap();
        let error = inotify.add_watch(&path, libc::IN_MODIFY).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("memory.events"), "{error}");
    }

    #[test]
    fn entries_of_a_folder_have_names() {
        let folder = tempfile::tempdir().unwrap();
        let inotify = Inotify::new().unwrap();
        let watch = inotify.add_watch(folder.path(), libc::IN_CREATE).unwrap();
        std::fs::write(folder.path().join("new"), "").unwrap();
        let expected = Event {
            watch,
            mask: libc::IN_CREATE,
            name: Some("new".into()),
        };
        assert_eq!(inotify.read_events().unwrap(), [expected]);
    }
}
