//! Single snapshots at the daemon: which snapshotter, whether one is there, made anew, and removed.

use std::collections::BTreeMap;

use core_api::namespaces::GetNamespaceRequest;
use core_api::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest};
use core_api::types::Mount;
use tonic::{Code, Status};

use crate::connection::Connection;
use crate::error::{Error, Result};

/// The snapshotter where nobody says another, as in containerd's clients.
const DEFAULT: &str = "overlayfs";
/// The label of a namespace that says another.
const DEFAULT_LABEL: &str = "containerd.io/defaults/snapshotter";

/// The snapshotter to use: the one that is said, or the namespace's, or the usual one.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn snapshotter(connection: &Connection, said: Option<&str>) -> Result<String> {
    if let Some(said) = said {
        return Ok(said.to_owned());
    }
    let name = connection.namespace().to_owned();
    let answer = connection
        .namespaces()
        .get(GetNamespaceRequest { name })
        .await;
    let namespace = match answer {
        Ok(answer) => answer.into_inner().namespace,
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => {
            let what = format!("namespace {}", connection.namespace());
            return Err(Error::refused(what, status));
        }
    };
    let labels = namespace
        .map(|namespace| namespace.labels)
        .unwrap_or_default();
    let label = labels.get(DEFAULT_LABEL).filter(|label| !label.is_empty());
    Ok(label.cloned().unwrap_or_else(|| DEFAULT.to_owned()))
}

/// Whether a snapshot is there.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn is_there(
    connection: &Connection,
    snapshotter: &str,
    key: &str,
) -> Result<bool> {
    let request = StatSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
    };
    match connection.snapshots().stat(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(Error::refused(
            format!("snapshot {key} of {snapshotter}"),
            status,
        )),
    }
}

/// Makes a snapshot to be written to, on `parent` (empty for none); answers how it is mounted.
///
/// A containerd (1.6) that was killed in the middle of this may have left the folder of a snapshot
/// without its record. It gives that folder's number again, refuses with an error of no class ("file
/// exists"), and removes the folder in doing so. So after such an error it is asked once more.
///
/// # Errors
/// The daemon's refusal; AlreadyExists where there is one with this key.
pub(crate) async fn prepare(
    connection: &Connection,
    snapshotter: &str,
    key: &str,
    parent: &str,
) -> std::result::Result<Vec<Mount>, Status> {
    let request = PrepareSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels: BTreeMap::new(),
    };
    let mut answer = connection.snapshots().prepare(request.clone()).await;
    if matches!(&answer, Err(status) if status.code() == Code::Unknown) {
        answer = connection.snapshots().prepare(request).await;
    }
    Ok(answer?.into_inner().mounts)
}

/// Removes a snapshot; that it is not there is fine.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn remove(connection: &Connection, snapshotter: &str, key: &str) -> Result<()> {
    let request = RemoveSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
    };
    match connection.snapshots().remove(request).await {
        Err(status) if status.code() != Code::NotFound => Err(Error::refused(
            format!("cannot remove snapshot {key} of {snapshotter}"),
            status,
        )),
        _ => Ok(()),
    }
}
