//! The content store: blobs by digest, and the uploads that become blobs.
//!
//! [`blobs`] and [`ingest`] are the files; `store/content` has what each namespace may see of
//! them. Every namespace sees only what was written in it, though the files are shared.
//! [`session`] is one upload as a client sees it.

pub mod blobs;
pub mod digest;
pub mod ingest;
mod layers;
pub mod session;

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::RwLock;
use tonic::Status;

use crate::store::Store;

use blobs::Blobs;
use ingest::Ingests;

/// The folder below the daemon's root, as containerd has it.
const FOLDER: &str = "io.containerd.content.v1.content";

/// The content store; clones share it.
#[derive(Debug, Clone)]
pub struct Content {
    /// The blobs on disk.
    pub blobs: Blobs,
    /// The uploads on disk.
    pub ingests: Arc<Ingests>,
    /// What namespaces see of the blobs.
    pub store: Store,
    /// Held for reading from the moment a commit finds or makes the file of a blob until its
    /// namespace has it; for writing by the collector, from deciding that no namespace has a blob
    /// until its file is gone.
    pub gate: Arc<RwLock<()>>,
    /// Whether a namespace has to send a blob itself that another has.
    pub isolated: bool,
}

impl Content {
    /// Opens the store below `root`, the daemon's folder, and mends what a killed daemon left.
    ///
    /// # Errors
    /// Those of the file system and of the database.
    pub fn open(root: &Path, store: Store) -> Result<Self, Status> {
        let folder = root.join(FOLDER);
        let blobs = Blobs::open(&folder)?;
        let ingests = Ingests::open(&folder)?;
        ingests.recover(&blobs, |digest| Ok(store.blob_anywhere(digest)?.is_some()))?;
        Ok(Self {
            blobs,
            ingests,
            store,
            gate: Arc::default(),
            isolated: false,
        })
    }
}

/// Runs what works on files where it keeps nobody waiting.
///
/// # Errors
/// What `work` answers.
pub async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// A failure of the file system as the answer to a client: `ResourceExhausted` when there is no
/// room, else of no class; it names the path.
pub(crate) fn told(path: &Path, error: &io::Error) -> Status {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Status::resource_exhausted(text)
        }
        _ => Status::unknown(text),
    }
}
