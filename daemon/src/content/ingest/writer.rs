//! Writing an upload: data at its end, hashed as it comes, until it is a blob.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use core_api::Timestamp;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::files::{begin, hash_file, progress, remove};
use super::{Ingests, Progress, REFERENCE_LIMIT, Turn};
use crate::content::blobs::Blobs;
use crate::content::digest::Digest;
use crate::content::told;
use crate::status;

/// The one writer of an upload.
#[derive(Debug)]
pub struct Writer {
    turn: Turn,
    file: File,
    hash: Sha256,
    progress: Progress,
}

impl Writer {
    /// Begins an upload, or goes on with one. One of another total is another upload, which takes
    /// the place of the one that was.
    ///
    /// # Errors
    /// `Unavailable` while somebody else writes it; `InvalidArgument` for a reference that cannot
    /// be one.
    pub fn open(
        ingests: &Arc<Ingests>,
        namespace: &str,
        reference: &str,
        total: u64,
    ) -> Result<Self, Status> {
        if reference.len() > REFERENCE_LIMIT || reference.contains('\0') {
            let text = format!("a reference has at most {REFERENCE_LIMIT} bytes and no NUL");
            return Err(status::invalid(text));
        }
        let turn = ingests.take(ingests.folder_of(namespace, reference), reference)?;
        let folder = turn.folder.clone();
        let same = |known: &Progress| total == 0 || known.total == 0 || total == known.total;
        let known = progress(&folder)?
            .map(|(_, progress)| progress)
            .filter(same);
        let mut hash = Sha256::new();
        let progress = match known {
            Some(known) => {
                hash_file(&folder.join("data"), &mut hash)?;
                known
            }
            None => begin(&folder, namespace, reference, total)?,
        };
        let data = folder.join("data");
        let file = OpenOptions::new()
            .append(true)
            .open(&data)
            .map_err(|error| told(&data, &error))?;
        Ok(Self {
            turn,
            file,
            hash,
            progress,
        })
    }

    /// How far it is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The digest of what there is.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.hash)
    }

    /// The digest of what there would be with `data` at the end.
    pub fn digest_with(&self, data: &[u8]) -> Digest {
        Digest::of(&self.hash.clone().chain_update(data))
    }

    /// Adds `data` at the end.
    ///
    /// # Errors
    /// `ResourceExhausted` on a full disk, and then the data ends where it ended before.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Status> {
        if let Err(error) = self.file.write_all(data) {
            // What is on disk must be what the hash has seen.
            let _ = self.file.set_len(self.progress.offset);
            return Err(self.told(&error));
        }
        self.hash.update(data);
        self.progress.offset += data.len() as u64;
        self.progress.updated = SystemTime::now();
        Ok(())
    }

    /// Throws away what there is and begins anew.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn restart(&mut self) -> Result<(), Status> {
        self.file.set_len(0).map_err(|error| self.told(&error))?;
        self.hash = Sha256::new();
        self.progress.offset = 0;
        self.progress.updated = SystemTime::now();
        Ok(())
    }

    /// Makes the data durable and a blob; the upload stays until [`Writer::done`]. `size` 0 and no
    /// `expected` take what there is.
    ///
    /// # Errors
    /// `FailedPrecondition` for another size or digest than expected. Data with the wrong digest
    /// is thrown away: going on with it could never succeed.
    pub fn commit(
        &mut self,
        blobs: &Blobs,
        size: u64,
        expected: Option<&Digest>,
    ) -> Result<Digest, Status> {
        let offset = self.progress.offset;
        if size > 0 && size != offset {
            let text = format!("unexpected commit size {offset}, expected {size}");
            return Err(status::precondition(text));
        }
        let digest = self.digest();
        if let Some(expected) = expected
            && *expected != digest
        {
            self.restart()?;
            let text = format!("unexpected commit digest {digest}, expected {expected}");
            return Err(status::precondition(text));
        }
        self.file.sync_data().map_err(|error| self.told(&error))?;
        blobs.link(&self.turn.folder.join("data"), &digest)?;
        Ok(digest)
    }

    /// Removes the upload, whose data is a blob now or is not wanted.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn done(self) -> Result<(), Status> {
        remove(&self.turn.folder)
    }

    fn told(&self, error: &io::Error) -> Status {
        told(&self.turn.folder, error)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let now = Timestamp::from(self.progress.updated).to_string();
        // Only told to other daemons; ours looks at the data. The folder may be gone.
        if self.turn.folder.join("namespace").exists() {
            let _ = fs::write(self.turn.folder.join("updatedat"), now);
        }
    }
}
