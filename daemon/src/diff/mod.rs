//! Layers: unpacked onto mounts ([`apply`]), and made from what differs between two trees
//! ([`changes`], [`write`]).
//!
//! From blob to tree: `stream` decompresses in a thread of its own and hashes, `tar` reads
//! entries, `names` and `resolve` find out where they go and refuse what leads out, `target` makes
//! them by descriptor.

pub mod apply;
pub mod blobs;
pub mod changes;
pub mod compare;
pub mod fault;
mod inodes;
pub mod media;
mod metadata;
pub mod mounts;
mod names;
mod resolve;
mod space;
mod spool;
pub mod stream;
pub mod tar;
pub mod target;
pub mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use core_api::types::{Descriptor, Mount};
use tokio::sync::Semaphore;
use tonic::Status;

use blobs::{Blobs, Upload};
use fault::Fault;
use media::Compression;
use stream::Passed;

/// How many layers are worked on at the same time: each may take 4 MiB of buffers and, in
/// Zstandard, 16 MiB of window, and two keep two processors and the disk busy.
const AT_ONCE: usize = 2;
/// The label that tells the digest of a compressed layer's content.
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Unpacks and makes layers; clones share it.
#[derive(Debug, Clone)]
pub struct Differ {
    blobs: Arc<dyn Blobs>,
    scratch: Arc<Path>,
    reserve: u64,
    turn: Arc<Semaphore>,
}

/// What a client wants of a layer that is to be made.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Empty for the usual one.
    pub media_type: String,
    /// The name of the upload; empty for any.
    pub reference: String,
    /// Labels of the blob.
    pub labels: BTreeMap<String, String>,
    /// No time in the layer is later than this, in seconds since 1970.
    pub latest: Option<i64>,
}

impl Differ {
    /// With blobs from `blobs`, and mount points below `root`, the daemon's folder. Unpacking
    /// leaves at least `reserve` bytes of the disk free.
    pub fn new(blobs: Arc<dyn Blobs>, root: &Path, reserve: u64) -> Self {
        let scratch = scratch(root);
        mounts::recover(&scratch);
        Self {
            blobs,
            scratch: scratch.into(),
            reserve,
            turn: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Sees that `layer` could be unpacked.
    ///
    /// # Errors
    /// `NotFound` for the blob; `Unimplemented` for its media type.
    pub fn check(&self, namespace: &str, layer: &Descriptor) -> Result<(), Status> {
        media::reading(&layer.media_type)?;
        self.blobs.open(namespace, &layer.digest).map(drop)
    }

    /// Unpacks `layer` onto `mounts` and answers what the uncompressed archive is.
    ///
    /// # Errors
    /// `NotFound` for the blob; `Unimplemented` for its media type; `InvalidArgument` for what is
    /// wrong with the layer, `DataLoss` where the disk has damaged it; `ResourceExhausted` when the
    /// reserve of free space is reached.
    pub async fn apply(
        &self,
        namespace: &str,
        layer: Descriptor,
        mounts: Vec<Mount>,
        sync: bool,
    ) -> Result<Descriptor, Status> {
        let reading = media::reading(&layer.media_type)?;
        let blob = self.blobs.open(namespace, &layer.digest)?;
        let known = self.blobs.uncompressed(namespace, &layer.digest);
        let (blobs, digest) = (self.blobs.clone(), layer.digest.clone());
        let (scratch, reserve) = (self.scratch.clone(), self.reserve);
        let turn = self.turn.clone().acquire_owned().await;
        let passed = blocking(move || {
            // Held by the work itself: a client that goes away does not end it.
            let _turn = turn;
            let tree = mounts::for_writing(&mounts, &scratch)?;
            let length = blob.metadata().map_or(0, |found| found.len());
            // Whether it is our disk that has changed the layer.
            let damage = || blobs.check(&digest).map_err(Fault::damaged);
            let check = |passed: &Passed| {
                // What is as long as its blob was not compressed.
                let wanted = known.as_deref();
                let wanted = wanted.or_else(|| (passed.size == length).then_some(&*digest));
                if wanted.is_none_or(|wanted| wanted == passed.digest) {
                    return Ok(());
                }
                // A label that lies is its client's business.
                damage()
            };
            let passed = apply::apply_checked(blob, reading, &tree.place, reserve, check);
            let passed = passed.or_else(|fault| match fault {
                // It may as well have been made so; and what the kernel refused may be a name that
                // the damage has changed.
                Fault::Layer(_) | Fault::Io(..) => damage().and(Err(fault)),
                Fault::Damaged(_) | Fault::Full(_) => Err(fault),
            })?;
            if sync {
                File::open(&tree.place.root)
                    .and_then(|folder| Ok(nix::unistd::syncfs(folder)?))
                    .map_err(|error| Fault::at(&tree.place.root, error))?;
            }
            Ok(passed)
        })
        .await
        .map_err(|refusal| {
            let text = format!("layer {}: {}", layer.digest, refusal.message());
            Status::new(refusal.code(), text)
        })?;
        Ok(Descriptor {
            media_type: media::TAR.to_owned(),
            digest: passed.digest,
            size: i64::try_from(passed.size).unwrap_or(i64::MAX),
            annotations: BTreeMap::new(),
        })
    }

    /// Makes a layer of what is different in `right` from `left`, stores it and answers what it
    /// is.
    ///
    /// # Errors
    /// `Unimplemented` for the media type; `InvalidArgument` for a tree that no layer can tell
    /// of; what cannot be mounted or read.
    pub async fn diff(
        &self,
        namespace: String,
        lease: Option<String>,
        left: Vec<Mount>,
        right: Vec<Mount>,
        wanted: Wanted,
    ) -> Result<Descriptor, Status> {
        let (media_type, compression) = media::writing(&wanted.media_type)?;
        let scratch = self.scratch.clone();
        let latest = wanted.latest;
        let turn = self.turn.clone().acquire_owned().await;
        let (written, mut data) = blocking(move || {
            let _turn = turn;
            let (left, right) = (
                mounts::for_reading(&left, &scratch)?,
                mounts::for_reading(&right, &scratch)?,
            );
            let data = nameless(&scratch)?;
            let copy = data
                .try_clone()
                .map_err(|error| Fault::at(&scratch, error))?;
            let roots = (&left.place.root, &right.place.root);
            let written = write::write_layer(roots.0, roots.1, copy, compression, latest)?;
            Ok((written, data))
        })
        .await?;
        data.seek(SeekFrom::Start(0))
            .map_err(|error| Fault::io("a temporary file", error))?;
        let mut labels = wanted.labels;
        if compression != Compression::None {
            labels.insert(UNCOMPRESSED.to_owned(), written.uncompressed.clone());
        }
        let upload = Upload {
            namespace,
            lease,
            reference: if wanted.reference.is_empty() {
                fresh_reference()
            } else {
                wanted.reference
            },
            labels,
            digest: written.digest.clone(),
            size: written.size,
        };
        self.blobs.add(upload, data).await?;
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest: written.digest,
            size: i64::try_from(written.size).unwrap_or(i64::MAX),
            annotations: BTreeMap::new(),
        })
    }
}

/// The folder of mount points and temporary files below the daemon's.
pub fn scratch(root: &Path) -> PathBuf {
    root.join("io.wherry.diff.v1")
}

/// The name of an upload that nobody else has.
fn fresh_reference() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("diff-{}-{}", std::process::id(), now.as_nanos())
}

/// A file without a name; it goes when it is closed.
fn nameless(folder: &Path) -> Result<File, Fault> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Fault::at(folder, error))?;
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder)
        .map_err(|error| Fault::at(folder, error))
}

/// Runs what works on files where it keeps nobody waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Status::from),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
