//! Uploads in progress: a folder each, in which `data` grows until it is committed or aborted.
//! One writer at a time has an upload; a client that comes back under the same reference goes on
//! where the data ends.
//!
//! A folder is named by the SHA-256 of namespace and reference, and has containerd's files:
//! `data`, `ref`, `startedat`, `updatedat`, and `total` where the client said it. The file
//! `namespace` is ours: folders without it are another daemon's, and are left alone.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use core_api::Timestamp;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::blobs::{Blobs, private_folder};
use super::digest::Digest;
use super::told;
use crate::status;

/// The longest reference, in bytes. Clients make them of names and digests.
const REFERENCE_LIMIT: usize = 4096;
/// How much is read at once when the hash of an upload is taken again, in bytes.
const READ_SIZE: usize = 1 << 20;

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
    taken: Mutex<HashSet<PathBuf>>,
}

/// The right to be the one writer of an upload.
#[derive(Debug)]
struct Turn {
    ingests: Arc<Ingests>,
    folder: PathBuf,
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

    fn taken(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder_of(&self, namespace: &str, reference: &str) -> PathBuf {
        self.folder.join(folder_name(namespace, reference))
    }

    fn take(self: &Arc<Self>, folder: PathBuf, reference: &str) -> Result<Turn, Status> {
        if !self.taken().insert(folder.clone()) {
            let text = format!("ref {reference} locked: unavailable");
            return Err(Status::unavailable(text));
        }
        let ingests = self.clone();
        Ok(Turn { ingests, folder })
    }

    /// How far one upload is.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn progress(&self, namespace: &str, reference: &str) -> Result<Progress, Status> {
        let folder = self.folder_of(namespace, reference);
        progress(&folder)?
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
            let entry = progress(&folder)?;
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

/// The namespace and the progress of the upload in `folder`; `None` where there is none of ours.
fn progress(folder: &Path) -> Result<Option<(String, Progress)>, Status> {
    let text = |name: &str| fs::read_to_string(folder.join(name));
    let (Ok(namespace), Ok(reference)) = (text("namespace"), text("ref")) else {
        return Ok(None);
    };
    let data = folder.join("data");
    let found = match fs::metadata(&data) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(told(&data, &error)),
    };
    let updated = found.modified().map_err(|error| told(&data, &error))?;
    let started = text("startedat")
        .ok()
        .and_then(|text| text.parse::<Timestamp>().ok())
        .and_then(|time| SystemTime::try_from(time).ok());
    let progress = Progress {
        reference,
        offset: found.len(),
        total: text("total")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0),
        started: started.unwrap_or(updated),
        updated,
    };
    Ok(Some((namespace, progress)))
}

/// Removes an upload. The file that marks it as ours goes last, so that what is left by a daemon
/// that is killed now is found and removed by the next.
fn remove(folder: &Path) -> Result<(), Status> {
    for name in [
        "data",
        "total",
        "updatedat",
        "startedat",
        "ref",
        "namespace",
    ] {
        let path = folder.join(name);
        sys::fs::remove_if_exists(&path).map_err(|error| told(&path, &error))?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told(folder, &error)),
        _ => Ok(()),
    }
}

/// Adds all of a file to a hash.
pub(super) fn hash_file(path: &Path, hash: &mut Sha256) -> Result<(), Status> {
    let mut read = || -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; READ_SIZE];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                count => hash.update(&buffer[..count]),
            }
        }
    };
    read().map_err(|error| told(path, &error))
}

/// The one writer of an upload.
#[derive(Debug)]
pub struct Writer {
    turn: Turn,
    file: File,
    hash: Sha256,
    progress: Progress,
}

impl Writer {
    /// Begins an upload, or goes on with one.
    ///
    /// # Errors
    /// `Unavailable` while somebody else writes it; `InvalidArgument` for a reference that cannot
    /// be one, or another total than was said before.
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
        let known = progress(&folder)?.map(|(_, progress)| progress);
        let mut hash = Sha256::new();
        let progress = match known {
            Some(known) => {
                if total > 0 && known.total > 0 && total != known.total {
                    return Err(status::invalid(format_args!(
                        "provided total differs from status: {total} != {}",
                        known.total
                    )));
                }
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

fn begin(folder: &Path, namespace: &str, reference: &str, total: u64) -> Result<Progress, Status> {
    // What a daemon that was killed while making it has left.
    if folder.exists() {
        remove(folder)?;
    }
    private_folder(folder)?;
    let now = SystemTime::now();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options
            .open(&path)
            .and_then(|mut file| file.write_all(bytes));
        written.map_err(|error| told(&path, &error))
    };
    let time = Timestamp::from(now).to_string();
    let made = put("namespace", namespace.as_bytes())
        .and_then(|()| put("ref", reference.as_bytes()))
        .and_then(|()| put("startedat", time.as_bytes()))
        .and_then(|()| put("updatedat", time.as_bytes()))
        .and_then(|()| match total {
            0 => Ok(()),
            total => put("total", total.to_string().as_bytes()),
        })
        .and_then(|()| put("data", b""));
    if let Err(error) = made {
        let _ = remove(folder);
        return Err(error);
    }
    Ok(Progress {
        reference: reference.to_owned(),
        offset: 0,
        total,
        started: now,
        updated: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        dir: tempfile::TempDir,
        blobs: Blobs,
        ingests: Arc<Ingests>,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let ingests = Ingests::open(dir.path()).unwrap();
        Rig {
            dir,
            blobs,
            ingests,
        }
    }

    #[test]
    fn what_became_a_blob_without_becoming_known_is_an_upload_again() {
        let rig = rig();
        let mut writer = Writer::open(&rig.ingests, "ns", "r", 3).unwrap();
        writer.write(b"abc").unwrap();
        let digest = writer.commit(&rig.blobs, 3, None).unwrap();
        drop(writer);
        assert_eq!(rig.blobs.size(&digest).unwrap(), Some(3));

        rig.ingests.recover(&rig.blobs, |_| Ok(false)).unwrap();
        assert_eq!(rig.blobs.size(&digest).unwrap(), None);
        let progress = rig.ingests.progress("ns", "r").unwrap();
        assert_eq!((progress.offset, progress.total), (3, 3));

        let mut writer = Writer::open(&rig.ingests, "ns", "r", 3).unwrap();
        writer.commit(&rig.blobs, 3, Some(&digest)).unwrap();
        drop(writer);
        rig.ingests.recover(&rig.blobs, |_| Ok(true)).unwrap();
        assert_eq!(rig.blobs.size(&digest).unwrap(), Some(3));
        assert_eq!(rig.ingests.list(None).unwrap(), []);
        assert_eq!(rig.blobs.all().unwrap(), [digest]);
    }

    #[test]
    fn uploads_of_another_daemon_are_left_alone() {
        let rig = rig();
        let theirs = rig.dir.path().join("ingest/0123");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("ref"), "default/1/layer").unwrap();
        rig.ingests.recover(&rig.blobs, |_| Ok(true)).unwrap();
        assert!(theirs.join("ref").exists());
        assert_eq!(rig.ingests.list(None).unwrap(), []);
    }

    #[test]
    fn data_with_the_wrong_digest_is_thrown_away() {
        let rig = rig();
        let mut writer = Writer::open(&rig.ingests, "ns", "r", 0).unwrap();
        writer.write(b"abc").unwrap();
        let right = writer.digest();
        writer.restart().unwrap();
        writer.write(b"abd").unwrap();
        let refusal = writer.commit(&rig.blobs, 3, Some(&right)).unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::FailedPrecondition);
        drop(writer);
        assert_eq!(rig.ingests.progress("ns", "r").unwrap().offset, 0);
        rig.ingests.abort("ns", "r").unwrap();
        rig.ingests.abort("ns", "r").unwrap_err();
    }
}
