//! The end of the shim: asked for by Shutdown, by a signal, or because nobody needs it.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shim_common::server::Server;

use super::{Key, Supervisor};
use crate::container::{CallId, Reply};
use crate::service::Answer;

/// How long the last events may take to leave (DESIGN rule 4).
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Shutdown ends a shim without containers, and the v1 shim always. A creation under way is
    /// undone first; the answer follows when that is done.
    pub(super) fn shutdown_asked(&mut self, call: CallId) {
        let creating: Vec<Key> = self
            .containers
            .iter()
            .filter(|(_, entry)| entry.rules.is_creating())
            .map(|(key, _)| *key)
            .collect();
        if self.containers.len() > creating.len() && !self.flavor.shutdown_is_unconditional() {
            return self.answer(call, Ok(Answer::Rules(Reply::Empty)));
        }
        self.shutting_down.push(call);
        for key in creating {
            let mut effects = Vec::new();
            if let Some(entry) = self.containers.get_mut(&key) {
                entry.rules.abort(&mut effects);
            }
            self.contain(key, |own| own.carry_out(key, effects));
        }
        self.container_forgotten();
    }

    /// A container is gone: if that was what Shutdown waited for, the shim ends.
    pub(super) fn container_forgotten(&mut self) {
        if self.shutting_down.is_empty() {
            return;
        }
        let creating = self
            .containers
            .values()
            .any(|entry| entry.rules.is_creating());
        if creating {
            return;
        }
        let ends = self.containers.is_empty() || self.flavor.shutdown_is_unconditional();
        for call in std::mem::take(&mut self.shutting_down) {
            self.answer(call, Ok(Answer::Rules(Reply::Empty)));
        }
        self.done |= ends;
    }

    /// A signal for the shim itself: SIGTERM and SIGINT end it, containers or not; SIGUSR1 asks
    /// for a dump of its state.
    pub(super) fn signalled(&mut self, signal: i32) {
        match signal {
            libc::SIGUSR1 => self.dump(),
            _ => {
                log::info!("signal {signal}: the shim ends, its containers run on");
                self.done = true;
            }
        }
    }

    fn dump(&self) {
        let (owners, early) = self.ledger.sizes();
        log::info!(
            "state: containers={} calls={} events queued={} pids known={owners} early exits={early} \
             lingering relays={} tombstones={}",
            self.containers.len(),
            self.calls.len(),
            self.publisher.depth(),
            self.lingering.len(),
            self.tombstones.len(),
        );
        for entry in self.containers.values() {
            log::info!("{}", entry.rules.describe());
            log::info!("{}", entry.host.describe());
        }
    }

    /// Lets replies and events leave, then removes the socket.
    pub(super) async fn shut_down(mut self, server: Server) {
        server.stop(FLUSH_LIMIT).await;
        self.publisher.flush(FLUSH_LIMIT).await;
        for (_, relay) in std::mem::take(&mut self.lingering) {
            relay.shut();
        }
        if let Some(socket) = &self.socket {
            socket.remove();
        }
    }
}

/// The shim's socket in the file system, and which file it was when serving began.
pub(super) struct OwnSocket {
    path: PathBuf,
    identity: (u64, u64),
}

impl OwnSocket {
    /// The socket that `listener` is bound to; `None` for one without a path.
    pub(super) fn of(listener: &OwnedFd) -> Option<Self> {
        let listener = UnixListener::from(listener.try_clone().ok()?);
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        let identity = identity(&path)?;
        Some(Self { path, identity })
    }

    /// Removes the socket, unless a successor has bound its own at this path.
    fn remove(&self) {
        if identity(&self.path) == Some(self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
