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

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::RwLock;
use tonic::Status;

use crate::status;
use crate::store::audit::Table;
use crate::store::{self, Store};

use blobs::Blobs;
use digest::Digest;
use ingest::Ingests;

/// The folder below the daemon's root, as containerd has it.
pub const FOLDER: &str = "io.containerd.content.v1.content";

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
    /// Whether files without a record may be another daemon's.
    is_shared: bool,
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
            is_shared: store::containerd_was(root),
        })
    }

    /// Whether the file of a blob has the size that its record says.
    ///
    /// # Errors
    /// Those of the database and the file system.
    pub fn is_whole(&self, digest: &Digest) -> Result<bool, Status> {
        let known = self.store.blob_anywhere(digest)?;
        Ok(known.is_some() && known == self.blobs.size(digest)?)
    }

    /// Reads a blob whole.
    ///
    /// # Errors
    /// `DataLoss` that says how its bytes are not what its name says.
    pub fn check(&self, digest: &Digest) -> Result<(), Status> {
        let mut hash = Sha256::new();
        match ingest::hash_file(&self.blobs.path(digest), &mut hash) {
            Err(refusal) => Err(damaged(digest, refusal.message())),
            Ok(()) if Digest::of(&hash) != *digest => {
                let what = format!("its bytes are those of {}", Digest::of(&hash));
                Err(damaged(digest, what))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Removes files that no record names: a daemon was killed after it had forgotten the blobs. To
    /// be called once, at start, while `gate` is held for writing.
    ///
    /// # Errors
    /// Those of the database and the file system.
    pub fn remove_strays(&self) -> Result<(), Status> {
        if self.is_shared {
            return Ok(());
        }
        let blobs = self.store.rows(Table::Blobs)?.into_iter().map(|row| row.0);
        let mut known: HashSet<String> = blobs.collect();
        for (key, _) in self.store.rows(Table::Content)? {
            known.extend(key.split('\0').nth(1).map(str::to_owned));
        }
        let removed = self.blobs.keep(&known)?;
        if removed > 0 {
            log::info!("{removed} blobs without a record removed");
        }
        Ok(())
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

/// Opens the file of a blob, which is to have `size` bytes, and answers how many it has.
///
/// # Errors
/// `NotFound` where it is gone, `DataLoss` where it has another size; both name the blob.
pub(crate) fn open(path: &Path, digest: &Digest, size: i64) -> Result<(File, u64), Status> {
    let opened = File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        Ok((file, length))
    });
    let (file, length) = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => status::not_found(format_args!(
            "content {digest}: its file {}",
            path.display()
        )),
        _ => told(path, &error),
    })?;
    if u64::try_from(size) != Ok(length) {
        let what = format!("its file {} has {length} of {size} bytes", path.display());
        return Err(damaged(digest, what));
    }
    Ok((file, length))
}

/// A blob that is not what its name says, as the answer to a client.
pub(crate) fn damaged(digest: &Digest, what: impl fmt::Display) -> Status {
    Status::data_loss(format!(
        "content {digest} is damaged: {what}; `wherryd verify` says more, and `--repair` makes room \
         for it to be pulled again"
    ))
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
