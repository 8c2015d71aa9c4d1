//! Telling when somebody opens a FIFO: the one thing about a reader's coming that poll cannot say.
//!
//! inotify instances are scarce on a node (`fs.inotify.max_user_instances`, 128 by default, for
//! all shims together), so the shim has at most one for this, and only while an ended stream
//! awaits its reader.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::{Rc, Weak};

use sys::inotify::{Inotify, Watch};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watched::watch;

thread_local! {
    // The shim has one thread; its only instance lives as long as somebody waits on it.
    static SHARED: RefCell<Weak<AsyncFd<Inotify>>> = const { RefCell::new(Weak::new()) };
}

/// A watch on one file; dropped, it is taken off.
pub(super) struct Opens {
    instance: Rc<AsyncFd<Inotify>>,
    file: Watch,
}

/// Watches the file at `path` for being opened from now on.
pub(super) fn watch_opens(path: &Path) -> io::Result<Opens> {
    let known = SHARED.with_borrow(Weak::upgrade);
    let instance = match known {
        Some(instance) => instance,
        None => {
            let instance = Rc::new(watch(Inotify::new()?, Interest::READABLE)?);
            SHARED.set(Rc::downgrade(&instance));
            instance
        }
    };
    let file = instance.get_ref().add_watch(path, libc::IN_OPEN)?;
    Ok(Opens { instance, file })
}

impl Opens {
    /// Waits until this file, or another one watched through the same instance, was opened: look
    /// whether yours was, and wait again.
    pub(super) async fn next(&self) -> io::Result<()> {
        // Every waiter is woken by an event; who comes first empties the queue for all.
        let mut guard = self.instance.readable().await?;
        if self.instance.get_ref().read_events()?.is_empty() {
            guard.clear_ready();
        }
        Ok(())
    }
}

impl Drop for Opens {
    fn drop(&mut self) {
        if let Err(error) = self.instance.get_ref().remove_watch(self.file) {
            log::debug!("remove the watch on a FIFO: {error}");
        }
    }
}
