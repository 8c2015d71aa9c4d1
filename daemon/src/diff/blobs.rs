//! What this module needs of the content store.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use tonic::Status;

use super::fault::Fault;
use crate::status;

/// A blob to be stored.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    /// Who sees it.
    pub namespace: String,
    /// The lease that holds it.
    pub lease: Option<String>,
    /// The name of the upload.
    pub reference: String,
    /// The labels of the blob.
    pub labels: BTreeMap<String, String>,
    /// Its digest.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// Where blobs come from and go to.
#[tonic::async_trait]
pub trait Blobs: Debug + Send + Sync {
    /// Opens a blob that `namespace` sees.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for what is no digest.
    fn open(&self, namespace: &str, digest: &str) -> Result<File, Status>;

    /// Stores what is in `data`. That it is there already is a success.
    ///
    /// # Errors
    /// Those of the store.
    async fn add(&self, upload: Upload, data: File) -> Result<(), Status>;
}

/// The blobs on disk as containerd lays them out, without any metadata.
#[derive(Debug)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Those below `root`, the daemon's folder.
    pub fn new(root: &std::path::Path) -> Self {
        Self {
            folder: root.join("io.containerd.content.v1.content/blobs/sha256"),
        }
    }

    fn path(&self, digest: &str) -> Result<PathBuf, Status> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        let hex = hex.ok_or_else(|| status::invalid(format_args!("digest {digest:?}")))?;
        Ok(self.folder.join(hex))
    }
}

#[tonic::async_trait]
impl Blobs for Layout {
    fn open(&self, _: &str, digest: &str) -> Result<File, Status> {
        let path = self.path(digest)?;
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => status::not_found(format_args!("content digest {digest}")),
            _ => Fault::at(&path, error).into(),
        })
    }

    async fn add(&self, upload: Upload, mut data: File) -> Result<(), Status> {
        let path = self.path(&upload.digest)?;
        let told = |error| Status::from(Fault::at(&path, error));
        std::fs::create_dir_all(&self.folder).map_err(told)?;
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial).map_err(told)?;
        io::copy(&mut data, &mut file).map_err(told)?;
        file.sync_all().map_err(told)?;
        std::fs::rename(&partial, &path).map_err(told)
    }
}
