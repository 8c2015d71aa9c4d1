//! Writing an upload: data at its end, hashed as it comes, until it is a blob.
//!
//! Clients that compress while they send (`ctr images import --compress-blobs`) bring a blob in tens
//! of thousands of messages of some 240 bytes, and wait for the answer to each. To give every one of
//! them to a thread that may wait for the disk costs more than all else that is done for it, so small
//! ones wait in memory until enough have come. Nobody sees a difference: they count as written,
//! whoever ends an upload writes them, and so does the commit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

/// How much data waits in memory at most, in bytes: less than what a client sends at once that reads
/// a blob from somewhere, whose messages have 32 KiB and more.
const WAITING_LIMIT: usize = 16 << 10;

/// The one writer of an upload.
#[derive(Debug)]
pub struct Writer {
    turn: Turn,
    file: File,
    /// Of what is in the file and what waits, as the progress counts both.
    hash: Sha256,
    progress: Progress,
    /// Data that comes after what is in the file.
    waiting: Vec<u8>,
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
            waiting: Vec::new(),
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

    /// Adds `data` at the end without touching the disk, if there is little of it: answers whether
    /// it did. What is kept so is written with what comes next, and at the end of the upload.
    pub fn keep(&mut self, data: &[u8]) -> bool {
        if self.waiting.len() + data.len() > WAITING_LIMIT {
            return false;
        }
        self.waiting.extend_from_slice(data);
        self.grown(data);
        true
    }

    /// Adds `data` at the end, after what was kept.
    ///
    /// # Errors
    /// `ResourceExhausted` on a full disk, and then the data ends where it ended in the file before.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Status> {
        self.flush()?;
        if let Err(error) = self.file.write_all(data) {
            return Err(self.cut(self.progress.offset, &error));
        }
        self.grown(data);
        Ok(())
    }

    /// Writes what was kept.
    fn flush(&mut self) -> Result<(), Status> {
        let waiting = std::mem::take(&mut self.waiting);
        self.tell_waiting();
        let Err(error) = self.file.write_all(&waiting) else {
            return Ok(());
        };
        let refusal = self.cut(self.progress.offset - waiting.len() as u64, &error);
        // What could not be written has not come.
        self.hash = Sha256::new();
        hash_file(&self.turn.folder.join("data"), &mut self.hash)?;
        Err(refusal)
    }

    /// Ends the file where it ended before something of a write failed.
    fn cut(&mut self, length: u64, error: &io::Error) -> Status {
        let _ = self.file.set_len(length);
        self.progress.offset = length;
        self.told(error)
    }

    /// Takes note of more data.
    fn grown(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.progress.offset += data.len() as u64;
        self.progress.updated = SystemTime::now();
        self.tell_waiting();
    }

    /// Tells those who ask how far the upload is what is not in its file.
    fn tell_waiting(&self) {
        let count = self.waiting.len() as u64;
        self.turn.waiting.store(count, Ordering::Relaxed);
    }

    /// Throws away what there is and begins anew.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn restart(&mut self) -> Result<(), Status> {
        self.file.set_len(0).map_err(|error| self.told(&error))?;
        self.hash = Sha256::new();
        self.waiting.clear();
        self.progress.offset = 0;
        self.grown(&[]);
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
        self.flush()?;
        self.file.sync_data().map_err(|error| self.told(&error))?;
        blobs.link(&self.turn.folder.join("data"), &digest)?;
        Ok(digest)
    }

    /// Removes the upload, whose data is a blob now or is not wanted.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn done(mut self) -> Result<(), Status> {
        self.waiting.clear();
        remove(&self.turn.folder)
    }

    fn told(&self, error: &io::Error) -> Status {
        told(&self.turn.folder, error)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(refusal) = self.flush() {
            let name = &self.progress.reference;
            log::warn!(
                "the end of the upload {name:?} is lost: {}",
                refusal.message()
            );
        }
        let now = Timestamp::from(self.progress.updated).to_string();
        // Only told to other daemons; ours looks at the data. The folder may be gone.
        if self.turn.folder.join("namespace").exists() {
            let _ = fs::write(self.turn.folder.join("updatedat"), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upload that has `12` in its file and keeps `abc`, on a disk that is full from now on.
    fn on_a_full_disk(ingests: &Arc<Ingests>) -> Writer {
        let mut writer = Writer::open(ingests, "ns", "r", 0).unwrap();
        writer.write(b"12").unwrap();
        assert!(writer.keep(b"abc"));
        writer.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        writer
    }

    #[test]
    fn what_was_kept_and_has_no_room_has_not_come() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let ingests = Ingests::open(dir.path()).unwrap();
        let there = Digest::of(&Sha256::new().chain_update(b"12"));
        for commit in [false, true] {
            let mut writer = on_a_full_disk(&ingests);
            let refusal = if commit {
                writer.commit(&blobs, 5, None).unwrap_err()
            } else {
                writer.write(b"d").unwrap_err()
            };
            assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
            assert_eq!(writer.progress().offset, 2);
            assert_eq!(writer.digest(), there);
            assert_eq!(ingests.progress("ns", "r").unwrap().offset, 2);
            writer.done().unwrap();
        }
    }
}
