//! What this module needs of the content store.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;

use tonic::Status;

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

    /// The digest of what is in a compressed blob, if it was unpacked here before.
    fn uncompressed(&self, namespace: &str, digest: &str) -> Option<String>;

    /// Reads a blob whole.
    ///
    /// # Errors
    /// `DataLoss` that names it, where its bytes are not what its name says.
    fn check(&self, digest: &str) -> Result<(), Status>;

    /// Stores what is in `data`. That it is there already is a success.
    ///
    /// # Errors
    /// Those of the store.
    async fn add(&self, upload: Upload, data: File) -> Result<(), Status>;
}
