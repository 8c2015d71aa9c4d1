//! Telling when somebody opens a FIFO: the one thing about a reader's coming that poll cannot say.
//!
//! inotify instances are scarce on a node (`fs.inotify.max_user_instances`, 128 by default, for
//! all shims together), so the shim has at most one for this, and only while an ended stream
//! awaits its reader.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::rc::{Rc, Weak};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watched::watch;

thread_local! {
    // The shim has one thread; its only instance lives as long as somebody waits on it.
    static SHARED: RefCell<Weak<AsyncFd<Instance>>> = const { RefCell::new(Weak::new()) };
}

struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A watch on one file; dropped, it is taken off.
pub(super) struct Opens {
    instance: Rc<AsyncFd<Instance>>,
    file: WatchDescriptor,
}

/// Watches the file at `path` for being opened from now on.
pub(super) fn watch_opens(path: &Path) -> io::Result<Opens> {
    let instance = SHARED.with_borrow_mut(|shared| match shared.upgrade() {
        Some(instance) => Ok(instance),
        None => {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let instance = Rc::new(watch(Instance(inotify), Interest::READABLE)?);
            *shared = Rc::downgrade(&instance);
            io::Result::Ok(instance)
        }
    })?;
    let file = instance
        .get_ref()
        .0
        .add_watch(path, AddWatchFlags::IN_OPEN)?;
    Ok(Opens { instance, file })
}

impl Opens {
    /// Waits until this file, or another one watched through the same instance, was opened: look
    /// whether yours was, and wait again.
    pub(super) async fn next(&self) -> io::Result<()> {
        // Every waiter is woken by an event; who comes first empties the queue for all.
        let mut guard = self.instance.readable().await?;
        match self.instance.get_ref().0.read_events() {
            Ok(_) => Ok(()),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {
                guard.clear_ready();
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Opens {
    fn drop(&mut self) {
        // Fails when the file and with it the watch is gone already.
        let _ = self.instance.get_ref().0.rm_watch(self.file);
    }
}
