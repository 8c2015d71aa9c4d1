//! Uploads in progress: a folder each, in which `data` grows until it is committed or aborted.
//! One writer at a time has an upload; a client that comes back under the same reference goes on
//! where the data ends.
//!
//! A folder is named by the SHA-256 of namespace and reference, and has containerd's files:
//! `data`, `ref`, `startedat`, `updatedat`, and `total` where the client said it. The file
//! `namespace` is ours: folders without it are another daemon's, and are left alone.

mod files;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::blobs::{Blobs, private_folder};
use super::digest::Digest;
use super::told;
use crate::status;
use files::{progress, remove};

pub(super) use files::hash_file;
pub use writer::Writer;

/// The longest reference, in bytes. Clients make them of names and digests.
const REFERENCE_LIMIT: usize = 4096;

/// How far an upload is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What the client calls it.
    pub reference: String,
    /// How much there is, in bytes.
    pub offset: u64,
    /// How much there will be, in bytes; 0 when nobody said.
    pub total: u64,
    /// When it was begun.
    pub started: SystemTime,
    /// When data last came.
    pub updated: SystemTime,
}

/// All uploads.
#[derive(Debug)]
pub struct Ingests {
    folder: PathBuf,
    /// The folders that a writer has.
    taken: Mutex<Taken>,
}

/// How many bytes the writer of each folder has that are not in the file yet.
type Taken = HashMap<PathBuf, Arc<AtomicU64>>;

/// The right to be the one writer of an upload.
#[derive(Debug)]
struct Turn {
    ingests: Arc<Ingests>,
    folder: PathBuf,
    waiting: Arc<AtomicU64>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.ingests.taken().remove(&self.folder);
    }
}

impl Ingests {
    /// The uploads below `content`, the content store's folder, which is made if need be.
    ///
    /// # Errors
    /// What the folder cannot be made for.
    pub fn open(content: &Path) -> Result<Arc<Self>, Status> {
        let folder = content.join("ingest");
        private_folder(&folder)?;
        Ok(Arc::new(Self {
            folder,
            taken: Mutex::default(),
        }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder_of(&self, namespace: &str, reference: &str) -> PathBuf {
        self.folder.join(folder_name(namespace, reference))
    }

    fn take(self: &Arc<Self>, folder: PathBuf, reference: &str) -> Result<Turn, Status> {
        let waiting = Arc::default();
        match self.taken().entry(folder.clone()) {
            Entry::Occupied(_) => {
                let text = format!("ref {reference} locked: unavailable");
                return Err(Status::unavailable(text));
            }
            Entry::Vacant(entry) => entry.insert(Arc::clone(&waiting)),
        };
        Ok(Turn {
            ingests: self.clone(),
            folder,
            waiting,
        })
    }

    /// The namespace and the progress of the upload in `folder`, with what its writer keeps.
    fn look(&self, folder: &Path) -> Result<Option<(String, Progress)>, Status> {
        let waiting = self
            .taken()
            .get(folder)
            .map_or(0, |waiting| waiting.load(Ordering::Relaxed));
        let found = progress(folder)?;
        Ok(found.map(|(namespace, mut progress)| {
            progress.offset += waiting;
            (namespace, progress)
        }))
    }

    /// How far one upload is.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn progress(&self, namespace: &str, reference: &str) -> Result<Progress, Status> {
        let folder = self.folder_of(namespace, reference);
        self.look(&folder)?
            .ok_or_else(|| status::not_found(format_args!("ingest {reference:?}")))
            .map(|(_, progress)| progress)
    }

    /// How far the uploads of a namespace are, or all with their namespaces.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self, namespace: Option<&str>) -> Result<Vec<(String, Progress)>, Status> {
        let mut found = Vec::new();
        for folder in self.folders()? {
            let entry = self.look(&folder)?;
            found.extend(entry.filter(|(owner, _)| namespace.is_none_or(|wanted| wanted == owner)));
        }
        found.sort_by(|a, b| a.1.reference.cmp(&b.1.reference));
        Ok(found)
    }

    fn folders(&self) -> Result<Vec<PathBuf>, Status> {
        let told = |error: io::Error| told(&self.folder, &error);
        fs::read_dir(&self.folder)
            .map_err(told)?
            .map(|entry| entry.map(|entry| entry.path()).map_err(told))
            .collect()
    }

    /// Throws an upload away.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` while somebody writes it.
    pub fn abort(self: &Arc<Self>, namespace: &str, reference: &str) -> Result<(), Status> {
        let folder = self.folder_of(namespace, reference);
        let turn = self.take(folder, reference)?;
        if !turn.folder.exists() {
            return Err(status::not_found(format_args!("ingest {reference:?}")));
        }
        remove(&turn.folder)
    }

    /// Brings order into what a killed daemon left: uploads that `is_known` says were committed go,
    /// and what was to become a blob without becoming known is an upload again.
    ///
    /// # Errors
    /// Those of the file system, and of `is_known`.
    pub fn recover(
        &self,
        blobs: &Blobs,
        is_known: impl Fn(&Digest) -> Result<bool, Status>,
    ) -> Result<(), Status> {
        for folder in self.folders()? {
            let data = folder.join("data");
            if !folder.join("namespace").exists() {
                // Another daemon's; or, where it is empty, what was just being made or removed.
                let _ = fs::remove_dir(&folder);
                continue;
            }
            let Ok(found) = fs::metadata(&data) else {
                // It was being made, or being removed.
                remove(&folder)?;
                continue;
            };
            if found.nlink() < 2 {
                continue;
            }
            let mut hash = Sha256::new();
            hash_file(&data, &mut hash)?;
            let digest = Digest::of(&hash);
            if is_known(&digest)? {
                remove(&folder)?;
            } else {
                blobs.remove(&digest)?;
            }
        }
        Ok(())
    }
}

/// The name of the folder of an upload.
pub fn folder_name(namespace: &str, reference: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(namespace.as_bytes());
    hash.update(b"/");
    hash.update(reference.as_bytes());
    Digest::of(&hash).hex()
}
