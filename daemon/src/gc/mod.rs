//! The collector of what nobody needs: expired leases, blobs, snapshots and abandoned uploads.
//!
//! [`graph`] has the rules, `store/garbage` applies them in one transaction, and the files go
//! after that. It runs when enough has changed ([`scheduler`]), and for clients that wait for it.

pub mod graph;
pub mod scheduler;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use core_api::events::{ContentDelete, SnapshotRemove};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tonic::Status;

use crate::config::Gc;
use crate::content::{Content, on_disk};
use crate::exchange::Exchange;
use crate::snapshot::Snapshots;
use crate::store::garbage::Garbage;

/// How long an upload that no lease holds may lie untouched.
const INGEST_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The collector; clones share it.
#[derive(Debug, Clone)]
pub struct Collector {
    content: Content,
    snapshots: Snapshots,
    exchange: Arc<Exchange>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// One collection at a time.
    turn: Mutex<()>,
    /// Changes and deletions since the last collection began.
    mutations: AtomicU64,
    deletions: AtomicU64,
    changed: Notify,
}

impl Collector {
    /// A collector of `content` and `snapshots`.
    pub fn new(content: Content, snapshots: Snapshots, exchange: Arc<Exchange>) -> Self {
        Self {
            content,
            snapshots,
            exchange,
            shared: Arc::default(),
        }
    }

    /// Takes note that something has changed, or that something was removed.
    pub fn note(&self, deletion: bool) {
        self.shared.mutations.fetch_add(1, Ordering::Relaxed);
        if deletion {
            self.shared.deletions.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.changed.notify_one();
    }

    /// Collects whenever `thresholds` say so, for ever.
    pub async fn run(self, thresholds: Gc) {
        tokio::time::sleep(thresholds.startup_delay).await;
        if let Err(refusal) = self.remove_strays().await {
            log::warn!("blobs without a record: {}", refusal.message());
        }
        let mut ready = false;
        loop {
            let began = Instant::now();
            match self.collect().await {
                Ok(()) if !ready => log::info!("collector ready"),
                Ok(()) => {}
                Err(refusal) => log::error!("garbage collection: {}", refusal.message()),
            }
            ready = true;
            tokio::time::sleep(thresholds.pause_after(began.elapsed())).await;
            loop {
                let mutations = self.shared.mutations.load(Ordering::Relaxed);
                let deletions = self.shared.deletions.load(Ordering::Relaxed);
                if thresholds.reached(mutations, deletions) {
                    break;
                }
                self.shared.changed.notified().await;
            }
        }
    }

    /// Removes what a collection that was cut off has left. Nobody commits meanwhile.
    async fn remove_strays(&self) -> Result<(), Status> {
        let _gate = self.content.gate.write().await;
        let content = self.content.clone();
        on_disk(move || content.remove_strays()).await
    }

    /// Collects now, and returns when everything that nobody needed before is gone.
    ///
    /// # Errors
    /// Those of the database and the file system.
    pub async fn collect(&self) -> Result<(), Status> {
        let _turn = self.shared.turn.lock().await;
        let began = Instant::now();
        self.shared.mutations.store(0, Ordering::Relaxed);
        self.shared.deletions.store(0, Ordering::Relaxed);
        let now = SystemTime::now();
        let gate = self.content.gate.write().await;
        let garbage = self.content.store.sweep(now).await?;
        let blobs = self.content.blobs.clone();
        let garbage = on_disk(move || {
            for digest in &garbage.blobs {
                blobs.remove(digest)?;
            }
            Ok(garbage)
        })
        .await?;
        drop(gate);
        for (scope, _, number) in &garbage.snapshots {
            self.snapshots.free(&scope.snapshotter, *number);
        }
        self.snapshots.freed().await;
        self.publish(&garbage);
        let collected = !garbage.is_empty();
        let (content, blobs) = (garbage.content.len(), garbage.blobs.len());
        let snapshots = garbage.snapshots.len();
        self.expire_ingests(now, garbage).await?;
        if collected {
            log::info!(
                "garbage collected in {:?}: {content} records of blobs, {blobs} blobs, \
                 {snapshots} snapshots",
                began.elapsed()
            );
        }
        Ok(())
    }

    /// Waits for the end of a collection that is under way; none begins while the answer is held.
    /// For a daemon that stops: records that are gone and files that are not would be left.
    pub async fn rest(&self) -> MutexGuard<'_, ()> {
        self.shared.turn.lock().await
    }

    fn publish(&self, garbage: &Garbage) {
        for (namespace, digest) in &garbage.content {
            let event = ContentDelete {
                digest: digest.clone(),
            };
            self.exchange
                .publish_message(namespace, "/content/delete", "ContentDelete", &event);
        }
        for (scope, key, _) in &garbage.snapshots {
            let event = SnapshotRemove {
                key: key.clone(),
                snapshotter: scope.snapshotter.clone(),
            };
            let namespace = &scope.namespace;
            self.exchange
                .publish_message(namespace, "/snapshot/remove", "SnapshotRemove", &event);
        }
    }

    /// Removes uploads that nobody has touched for long and no lease holds. One that is being
    /// written is `Unavailable`, and stays.
    async fn expire_ingests(&self, now: SystemTime, garbage: Garbage) -> Result<(), Status> {
        let ingests = self.content.ingests.clone();
        on_disk(move || {
            for (namespace, progress) in ingests.list(None)? {
                let age = now.duration_since(progress.updated).unwrap_or_default();
                let key = (namespace, progress.reference);
                if age > INGEST_LIMIT && !garbage.held_ingests.contains(&key) {
                    match ingests.abort(&key.0, &key.1) {
                        Ok(()) => log::info!("ingest {:?} of {} has expired", key.1, key.0),
                        Err(refusal) => log::debug!("ingest {:?}: {}", key.1, refusal.message()),
                    }
                }
            }
            Ok(())
        })
        .await
    }
}
