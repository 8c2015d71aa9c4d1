//! The blobs on disk: one file each, named by its digest, complete from the moment it has its
//! name. Which namespace may see it is not known here.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tonic::Status;

use super::digest::Digest;
use super::told;

/// How names end that are to replace others.
const FRESH: &str = ".new";

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

/// Puts another name of `data` in place of `path`, in one step.
fn replace(data: &Path, path: &Path) -> io::Result<()> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let (new, old) = (fs::metadata(data)?, fs::metadata(path)?);
    // A rename between two names of one file does nothing.
    if (new.dev(), new.ino()) == (old.dev(), old.ino()) {
        return Ok(());
    }
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let fresh = path.with_extension(format!("{serial}{FRESH}"));
    sys::fs::remove_if_exists(&fresh)?;
    fs::hard_link(data, &fresh)?;
    fs::rename(&fresh, path)
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

    /// As [`Blobs::open`], and nothing is made.
    pub fn at(content: &Path) -> Self {
        let folder = content.join("blobs/sha256");
        Self { folder }
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
    /// too, by which a daemon that is killed now finds what it had not finished. Whatever has the
    /// name already is replaced: nobody knows whether the disk has kept its bytes, and those of
    /// `data` have just been hashed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn link(&self, data: &Path, digest: &Digest) -> Result<(), Status> {
        let path = self.path(digest);
        fs::set_permissions(data, Permissions::from_mode(0o444))
            .map_err(|error| told(data, &error))?;
        match fs::hard_link(data, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => replace(data, &path),
            other => other,
        }
        .map_err(|error| told(&path, &error))?;
        sync_folder(&self.folder)
    }

    /// Removes a blob that nobody may see any more.
    ///
    /// # Errors
    /// Those of the file system; that it is gone already is none.
    pub fn remove(&self, digest: &Digest) -> Result<(), Status> {
        let path = self.path(digest);
        sys::fs::remove_if_exists(&path).map_err(|error| told(&path, &error))
    }

    /// Moves a blob whose bytes are not its own out of the way, to where it can be looked at, and
    /// answers where that is.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_aside(&self, digest: &Digest) -> Result<PathBuf, Status> {
        let content = self.folder.ancestors().nth(2).unwrap_or(&self.folder);
        let aside = content.join("damaged");
        private_folder(&aside)?;
        let (from, to) = (self.path(digest), aside.join(digest.hex()));
        fs::rename(&from, &to).map_err(|error| told(&from, &error))?;
        sync_folder(&aside)?;
        sync_folder(&self.folder)?;
        Ok(to)
    }

    /// Removes what no record names: all but the blobs in `known`, and names that were to replace
    /// others. Nobody may be committing meanwhile.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep(&self, known: &HashSet<String>) -> Result<usize, Status> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder).map_err(|error| told(&self.folder, &error))? {
            let entry = entry.map_err(|error| told(&self.folder, &error))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let digest = Digest::parse(&format!("sha256:{name}"));
            let is_stray = digest.is_ok_and(|digest| !known.contains(&digest.to_string()));
            if is_stray || name.ends_with(FRESH) {
                let path = entry.path();
                sys::fs::remove_if_exists(&path).map_err(|error| told(&path, &error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Every blob that there is a file for.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn all(&self) -> Result<Vec<Digest>, Status> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(|error| told(&self.folder, &error))?,
        };
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
