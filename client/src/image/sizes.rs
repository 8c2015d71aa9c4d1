//! How much room things take, and how much of it is given back when they go.

use std::collections::BTreeMap;

use core_api::snapshots::UsageRequest;
use oci_spec::image::Digest;

use super::inventory::{Inventory, Thing, namespaces};
use super::{content, snapshot};
use crate::connection::Connection;
use crate::error::{Error, Result};

/// How much a snapshot adds to what is below it, in bytes; nothing if it is gone.
pub(crate) async fn snapshot_size(connection: &Connection, snapshotter: &str, key: &str) -> u64 {
    let request = UsageRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
    };
    let answer = connection.snapshots().usage(request).await;
    let size = answer
        .map(|answer| answer.into_inner().size)
        .unwrap_or_default();
    u64::try_from(size).unwrap_or_default()
}

/// Things with their sizes, of which some may go.
#[derive(Debug, Default)]
pub(crate) struct Sizes(BTreeMap<Thing, u64>);

impl Sizes {
    /// Looks how large things are.
    pub(crate) async fn of(
        connection: &Connection,
        inventory: &Inventory,
        things: Vec<Thing>,
    ) -> Self {
        let mut sizes = BTreeMap::new();
        for thing in things {
            let size = match &thing {
                Thing::Blob(digest) => {
                    let size = inventory.blobs.get(digest).map_or(0, |info| info.size);
                    u64::try_from(size).unwrap_or_default()
                }
                Thing::Snapshot(snapshotter, key) => {
                    snapshot_size(connection, snapshotter, key).await
                }
            };
            sizes.insert(thing, size);
        }
        Self(sizes)
    }

    /// All together, in bytes.
    pub(crate) fn sum(&self) -> u64 {
        self.0
            .values()
            .fold(0, |sum: u64, size| sum.saturating_add(*size))
    }

    /// The snapshots among them, in bytes.
    pub(crate) fn snapshots(&self) -> u64 {
        let snapshots = self
            .0
            .iter()
            .filter(|(thing, _)| matches!(thing, Thing::Snapshot(..)));
        snapshots.fold(0, |sum: u64, (_, size)| sum.saturating_add(*size))
    }

    /// Whether a thing is among them.
    pub(crate) fn holds(&self, thing: &Thing) -> bool {
        self.0.contains_key(thing)
    }

    /// How many bytes of them are gone from the disk: a blob that another namespace has is not.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(crate) async fn gone(&self, connection: &Connection) -> Result<u64> {
        let mut everywhere = Vec::new();
        for namespace in namespaces(connection).await? {
            everywhere.push(connection.for_namespace(&namespace)?);
        }
        let mut sum: u64 = 0;
        for (thing, size) in &self.0 {
            let is_there = match thing {
                Thing::Blob(digest) => has_blob(&everywhere, digest).await?,
                Thing::Snapshot(snapshotter, key) => {
                    snapshot::is_there(connection, snapshotter, key).await?
                }
            };
            if !is_there {
                sum = sum.saturating_add(*size);
            }
        }
        Ok(sum)
    }
}

async fn has_blob(everywhere: &[Connection], digest: &str) -> Result<bool> {
    let digest =
        Digest::try_from(digest).map_err(|_| Error::said(format!("{digest:?} is no digest")))?;
    for connection in everywhere {
        if content::info(connection, &digest).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
