//! The blobs on disk: one file each, named by its digest, complete from the moment it has its
//! name. Which namespace may see it is not known here.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tonic::Status;

use super::digest::Digest;
use super::told;

/// The folder of all blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
}

/// Makes a folder that only the daemon's user may look into.
pub(super) fn private_folder(path: &Path) -> Result<(), Status> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| told(path, &error))
}

/// Makes what was done to the entries of a folder last (fsync(2)).
pub(super) fn sync_folder(path: &Path) -> Result<(), Status> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| told(path, &error))
}

impl Blobs {
    /// The blobs below `content`, the content store's folder, which is made if need be.
    ///
    /// # Errors
    /// What the folder cannot be made for.
    pub fn open(content: &Path) -> Result<Self, Status> {
        let folder = content.join("blobs/sha256");
        private_folder(&folder)?;
        Ok(Self { folder })
    }

    /// The content store's folder.
    pub fn content(&self) -> &Path {
        self.folder.ancestors().nth(2).unwrap_or(&self.folder)
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// How many bytes the blob has, if it is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, Status> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(told(&path, &error)),
        }
    }

    /// Gives the complete file `data`, already synced, its name here. The file keeps its old name
    /// too, by which a daemon that is killed now finds what it had not finished. A blob that is
    /// there already stays.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn link(&self, data: &Path, digest: &Digest) -> Result<(), Status> {
        let path = self.path(digest);
        fs::set_permissions(data, Permissions::from_mode(0o444))
            .map_err(|error| told(data, &error))?;
        match fs::hard_link(data, &path) {
            Ok(()) => sync_folder(&self.folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(told(&path, &error)),
        }
    }

    /// Removes a blob that nobody may see any more.
    ///
    /// # Errors
    /// Those of the file system; that it is gone already is none.
    pub fn remove(&self, digest: &Digest) -> Result<(), Status> {
        let path = self.path(digest);
        sys::fs::remove_if_exists(&path).map_err(|error| told(&path, &error))
    }

    /// Every blob that there is a file for.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn all(&self) -> Result<Vec<Digest>, Status> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.folder).map_err(|error| told(&self.folder, &error))?;
        for entry in entries {
            let name = entry
                .map_err(|error| told(&self.folder, &error))?
                .file_name();
            // Other files are none of ours.
            found.extend(Digest::parse(&format!("sha256:{}", name.display())).ok());
        }
        found.sort();
        Ok(found)
    }
}
