//! Unpacks layers, each once however many ask (ADR 0013).
//!
//! Who asks while the same layer is being unpacked for another client waits for that. When the
//! other's snapshot is committed, this one is told that its layer is unpacked, and its snapshot
//! stays hollow: committing it answers `AlreadyExists`, as it would have if both had done the
//! work. When the other fails or goes away, the next one unpacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use core_api::types::{Descriptor, Mount};
use tonic::Status;

use crate::diff::{Differ, media};
use crate::snapshot::Snapshots;
use crate::snapshot::flights::{Flights, Turn};
use crate::store::snapshots::Unpacked;

/// Unpacks layers; clones share it.
#[derive(Debug, Clone)]
pub struct Unpacker {
    differ: Differ,
    snapshots: Snapshots,
    flights: Flights,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    unpacked: AtomicU64,
    shared: AtomicU64,
}

/// A layer that a client wants unpacked.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it is.
    pub layer: Descriptor,
    /// Where it goes.
    pub mounts: Vec<Mount>,
    /// Whether it is to be on disk when that is answered.
    pub sync: bool,
}

impl Unpacker {
    /// Unpacks with `differ` into `snapshots`.
    pub fn new(differ: Differ, snapshots: Snapshots) -> Self {
        Self {
            differ,
            flights: snapshots.flights().clone(),
            snapshots,
            counts: Arc::default(),
        }
    }

    /// How many layers were unpacked, and how many were not because that was done already.
    pub fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.counts.unpacked), read(&self.counts.shared))
    }

    /// Unpacks a layer, or sees that it is unpacked, and answers what the uncompressed archive is.
    ///
    /// # Errors
    /// Those of [`Differ::apply`], and of the database.
    pub async fn apply(&self, namespace: &str, wanted: Wanted) -> Result<Descriptor, Status> {
        let extraction = self.snapshots.extraction(namespace, &wanted.mounts)?;
        let Some(extraction) = extraction else {
            return self.unpack(namespace, wanted).await;
        };
        // What could not be unpacked is not shared either.
        self.differ.check(namespace, &wanted.layer)?;
        let blob = wanted.layer.digest.clone();
        let lead = loop {
            match self.flights.join(&extraction, &blob) {
                Turn::Follow(mut end) => {
                    // It is closed at the end, which is an error and what is waited for.
                    let _ = end.changed().await;
                }
                Turn::Again => break None,
                Turn::Lead(lead) => {
                    if let Some(known) = self.snapshots.share(&extraction, &blob).await? {
                        self.counts.shared.fetch_add(1, Ordering::Relaxed);
                        log::debug!("layer {blob} of {} was unpacked already", extraction.key);
                        return Ok(told(known));
                    }
                    break Some(lead);
                }
            }
        };
        let was_hollow = !extraction.record.hollow.is_empty();
        let applied = self.unpack(namespace, wanted).await?;
        if was_hollow {
            self.snapshots.filled(extraction, blob.clone()).await?;
        }
        if let Some(lead) = lead {
            let unpacked = Unpacked {
                blob,
                digest: applied.digest.clone(),
                size: u64::try_from(applied.size).unwrap_or(0),
            };
            self.flights.land(lead, unpacked);
        }
        Ok(applied)
    }

    async fn unpack(&self, namespace: &str, wanted: Wanted) -> Result<Descriptor, Status> {
        let Wanted {
            layer,
            mounts,
            sync,
        } = wanted;
        let applied = self.differ.apply(namespace, layer, mounts, sync).await?;
        self.counts.unpacked.fetch_add(1, Ordering::Relaxed);
        Ok(applied)
    }
}

/// A layer that was unpacked, as [`Differ::apply`] answers it.
fn told(unpacked: Unpacked) -> Descriptor {
    Descriptor {
        media_type: media::TAR.to_owned(),
        digest: unpacked.digest,
        size: i64::try_from(unpacked.size).unwrap_or(i64::MAX),
        ..Descriptor::default()
    }
}
