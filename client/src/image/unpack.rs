//! The layers of an image as snapshots: each is applied to what is below it, under the names that
//! containerd's clients use, so that a layer is unpacked once whoever needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use core_api::diff::ApplyRequest;
use core_api::snapshots::{CommitSnapshotRequest, UsageRequest};
use core_api::types::Mount;
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};
use tonic::{Code, Status};

use super::lease::Lease;
use super::progress::{Part, Progress};
use super::{content, digest, manifest, snapshot};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::random;

/// How often it is asked how far the unpacking of a layer is, while somebody looks.
const LOOK: Duration = Duration::from_secs(2);

/// The names of the snapshots of layers, from the lowest up: of a layer and all below it.
pub(crate) fn chain(diff_ids: &[Digest]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.to_string(),
            Some(below) => digest::sha256_text(&format!("{below} {diff_id}")),
        });
    }
    chain
}

/// An image for one platform, ready to be unpacked.
#[derive(Debug)]
pub(crate) struct Unpackable {
    manifest: ImageManifest,
    diff_ids: Vec<Digest>,
    chain: Vec<String>,
}

impl Unpackable {
    /// From its documents.
    ///
    /// # Errors
    /// They do not belong together.
    pub(crate) fn new(manifest: ImageManifest, config: &ImageConfiguration) -> Result<Self> {
        let name = manifest.config().digest();
        let diff_ids = manifest::diff_ids(name, config)?;
        let (layers, diffs) = (manifest.layers().len(), diff_ids.len());
        if layers != diffs {
            return Err(Error::said(format!(
                "the configuration {name} describes {diffs} layers, and its manifest has {layers}"
            )));
        }
        let chain = chain(&diff_ids);
        Ok(Self {
            manifest,
            diff_ids,
            chain,
        })
    }

    /// The name of the snapshot with all layers; none for an image without any.
    pub(crate) fn top(&self) -> Option<&str> {
        self.chain.last().map(String::as_str)
    }
}

/// Unpacks what is not there yet, and labels the blobs so that the snapshots stay as long as the
/// image does.
///
/// # Errors
/// A layer cannot be unpacked, or holds something else than the configuration says.
pub(crate) async fn unpack(
    lease: &Lease,
    snapshotter: &str,
    image: &Unpackable,
    progress: &Progress,
) -> Result<()> {
    unpack_arriving(lease, snapshotter, image, progress, async |_| ()).await
}

/// As [`unpack`], while the layers are still being loaded: `arrived` waits for one.
///
/// # Errors
/// As [`unpack`].
pub(crate) async fn unpack_arriving(
    lease: &Lease,
    snapshotter: &str,
    image: &Unpackable,
    progress: &Progress,
    arrived: impl AsyncFn(&Digest),
) -> Result<()> {
    let connection = lease.connection();
    let mut below = "";
    let layers = image
        .manifest
        .layers()
        .iter()
        .zip(&image.diff_ids)
        .zip(&image.chain);
    for ((layer, diff_id), name) in layers {
        arrived(layer.digest()).await;
        // Held before it is looked for: nobody can remove it after it was seen.
        lease
            .hold(&format!("snapshots/{snapshotter}"), name)
            .await?;
        if !snapshot::is_there(connection, snapshotter, name).await? {
            let step = Step {
                connection,
                snapshotter,
                below,
                name,
            };
            let part = progress.part(digest::short(layer.digest().as_ref()), "unpacking", None);
            step.unpack(layer, diff_id, &part, progress.is_watched())
                .await?;
            part.done("unpacked");
        }
        let uncompressed = ("containerd.io/uncompressed".to_owned(), diff_id.to_string());
        content::set_labels(connection, layer.digest(), [uncompressed].into()).await?;
        below = name;
    }
    let Some(top) = image.top() else {
        return Ok(());
    };
    let label = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
    let labels: BTreeMap<_, _> = [(label, top.to_owned())].into();
    content::set_labels(connection, image.manifest.config().digest(), labels).await
}

/// One layer to be unpacked.
struct Step<'a> {
    connection: &'a Connection,
    snapshotter: &'a str,
    below: &'a str,
    name: &'a str,
}

impl Step<'_> {
    async fn unpack(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        part: &Part,
        watched: bool,
    ) -> Result<()> {
        let key = format!("extract-{} {}", random::id()?, self.name);
        let done = self.extract(&key, layer, diff_id, part, watched).await;
        if !matches!(done, Ok(true)) {
            // What failed is of no use to anybody, and what somebody else was first with neither.
            // The first error says more than one in cleaning up, which the lease does as well.
            let _ = snapshot::remove(self.connection, self.snapshotter, &key).await;
        }
        done.map(drop)
    }

    /// Answers whether the snapshot is this one, and not one that somebody else made meanwhile.
    async fn extract(
        &self,
        key: &str,
        layer: &Descriptor,
        diff_id: &Digest,
        part: &Part,
        watched: bool,
    ) -> Result<bool> {
        let mounts =
            match snapshot::prepare(self.connection, self.snapshotter, key, self.below).await {
                Ok(mounts) => mounts,
                // Snapshotters that fetch by themselves say so.
                Err(status) if self.is_made(&status).await => return Ok(false),
                Err(status) => {
                    return Err(self.refusal("cannot prepare a snapshot for", layer, status));
                }
            };
        let applied = self.apply(layer, mounts, key, part, watched).await?;
        if applied != diff_id.as_ref() {
            let digest = layer.digest();
            return Err(Error::said(format!(
                "layer {digest} unpacks to {applied}, and the configuration says {diff_id}"
            )));
        }
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            name: self.name.to_owned(),
            key: key.to_owned(),
            labels: BTreeMap::new(),
        };
        match self.connection.snapshots().commit(request).await {
            Ok(_) => Ok(true),
            Err(status) if self.is_made(&status).await => Ok(false),
            Err(status) => Err(self.refusal("cannot keep", layer, status)),
        }
    }

    /// Whether a call was refused because the snapshot has been made by somebody else.
    async fn is_made(&self, status: &Status) -> bool {
        status.code() == Code::AlreadyExists
            && matches!(
                snapshot::is_there(self.connection, self.snapshotter, self.name).await,
                Ok(true)
            )
    }

    fn refusal(&self, what: &str, layer: &Descriptor, status: Status) -> Error {
        Error::refused(
            format!("{what} layer {} ({})", layer.digest(), self.snapshotter),
            status,
        )
    }

    /// Applies a layer; answers the digest of what it unpacked to.
    async fn apply(
        &self,
        layer: &Descriptor,
        mounts: Vec<Mount>,
        key: &str,
        part: &Part,
        watched: bool,
    ) -> Result<String> {
        let mut diff = self.connection.diff();
        let applying = diff.apply(ApplyRequest {
            diff: Some(manifest::to_wire(layer)),
            mounts,
            ..ApplyRequest::default()
        });
        tokio::pin!(applying);
        let mut look = tokio::time::interval(LOOK);
        look.tick().await;
        let answer = loop {
            tokio::select! {
                answer = &mut applying => break answer,
                _ = look.tick(), if watched => {
                    if let Some(size) = self.usage(key).await {
                        part.at(size);
                    }
                }
            }
        };
        let answer = answer.map_err(|status| self.refusal("cannot unpack", layer, status))?;
        let applied = answer.into_inner().applied.unwrap_or_default();
        Ok(applied.digest)
    }

    /// How many bytes a snapshot holds by now.
    async fn usage(&self, key: &str) -> Option<u64> {
        let request = UsageRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
        };
        let answer = self.connection.snapshots().usage(request).await.ok()?;
        u64::try_from(answer.into_inner().size).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_a_layer_and_all_below_it() {
        let digests = [
            "sha256:7b7dc77916b03df86e96649f8f32f29661eb097f01f0b65c864fbefb53940403",
            "sha256:557d5cee82dd35dfdaf7e88084559cefbd18cb31ab00b99f6267ba59b0ce3312",
        ]
        .map(|text| Digest::try_from(text).unwrap());
        // As containerd's own client named the second of these two.
        let second = "sha256:7ffc41da58c6a49d38b8b7677354a994fc82c6baf8ee4dafe623d4bc7fd6ae8a";
        assert_eq!(chain(&digests), [digests[0].as_ref(), second]);
        assert!(chain(&[]).is_empty());
    }
}
