//! An image from a registry: its documents, its blobs, its record, and unpacked what is for here.

use std::collections::HashSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};
use tokio::sync::watch;

use super::blob::Source;
use super::unless_asked_to_end;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::lease::under_lease;
use crate::image::manifest::{self, DEEPEST, Document, Kind, kind};
use crate::image::platform::{self, Platform};
use crate::image::progress::Progress;
use crate::image::snapshot;
use crate::image::unpack::{self, Unpackable};
use crate::image::{content, record};
use crate::registry::{Name, Registry};
use crate::signals::Signals;

/// What is to be pulled.
#[derive(Debug)]
pub(crate) struct Pull<'a> {
    pub(crate) name: &'a Name,
    pub(crate) registry: &'a Registry,
    /// The platform; this machine's where none is said.
    pub(crate) platform: Option<Platform>,
    /// Everything, for whatever platform.
    pub(crate) all_platforms: bool,
    /// Into which snapshotter it is unpacked, if it is: where none is named, the namespace's.
    pub(crate) unpack: Option<Option<String>>,
    /// How many blobs are loaded at once, at least one.
    pub(crate) parallel: usize,
}

/// Pulls an image; answers what its name stands for then. If it is broken off, the next one goes
/// on from there.
///
/// # Errors
/// No host has it, it is damaged, the daemon refuses it, or somebody asked for an end.
pub(crate) async fn pull(
    connection: &Connection,
    wanted: &Pull<'_>,
    progress: &Progress,
    signals: &mut Signals,
) -> Result<Descriptor> {
    let name = wanted.name;
    under_lease(connection, async |lease| {
        let source = Source {
            name,
            registry: wanted.registry,
            lease,
            connection,
            progress,
        };
        let what = format!("{name} is not pulled");
        unless_asked_to_end(signals, &what, source.pull(wanted)).await
    })
    .await
}

/// The documents of an image, which are in the daemon.
#[derive(Debug, Default)]
struct Documents {
    images: Vec<Image>,
    /// What else an index names.
    others: Vec<Descriptor>,
}

/// An image for one platform.
#[derive(Debug)]
struct Image {
    manifest: ImageManifest,
    /// None where it is an artifact of another kind.
    config: Option<ImageConfiguration>,
    /// Whether it tells something about another one.
    is_attestation: bool,
}

impl Source<'_> {
    async fn pull(&self, wanted: &Pull<'_>) -> Result<Descriptor> {
        let root = wanted.registry.resolve(self.name).await;
        let root = root.map_err(|faults| faults.about(self.name))?;
        let documents = self.documents(&root, wanted).await?;
        let target = self.target(&documents, wanted)?;
        let target = match (&wanted.unpack, target) {
            (Some(said), Some((manifest, config))) => {
                let snapshotter = snapshot::snapshotter(self.connection, said.as_deref()).await?;
                Some((snapshotter, Unpackable::new(manifest.clone(), config)?))
            }
            _ => None,
        };
        let (arrived, seen) = watch::channel(HashSet::new());
        let loading = async {
            let loads = stream::iter(blobs(&documents)).map(|blob| {
                let arrived = &arrived;
                async move {
                    self.blob(&blob).await?;
                    arrived.send_modify(|all| {
                        all.insert(blob.digest().clone());
                    });
                    Ok::<(), Error>(())
                }
            });
            loads
                .buffer_unordered(wanted.parallel)
                .try_collect::<()>()
                .await?;
            record::set(self.connection, &self.name.to_string(), &root).await
        };
        let unpacking = async {
            let Some((snapshotter, image)) = &target else {
                return Ok(());
            };
            self.unpack(snapshotter, image, seen).await
        };
        tokio::try_join!(loading, unpacking)?;
        Ok(root)
    }

    /// Fetches the index and the manifests that are wanted, with their configurations.
    async fn documents(&self, root: &Descriptor, wanted: &Pull<'_>) -> Result<Documents> {
        let here = Platform::here();
        let platform = wanted.platform.as_ref().unwrap_or(&here);
        let mut found = Documents::default();
        let mut left = vec![(root.clone(), 0)];
        while let Some((what, depth)) = left.pop() {
            if depth > DEEPEST {
                let text = format!("{}: an index in an index, {DEEPEST} deep", self.name);
                return Err(Error::said(text));
            }
            let bytes = self.document(&what).await?;
            let document = manifest::read(&what, &bytes)?;
            // All children, loaded or not: then what a pull for another platform adds has names
            // of its own, and stays.
            let labels = manifest::labels(&document, |_| true);
            content::set_labels(self.connection, what.digest(), labels).await?;
            match document {
                Document::Index(index) => {
                    let all = index.manifests();
                    let name = self.name.to_string();
                    let chosen = if wanted.all_platforms {
                        all.iter().collect()
                    } else {
                        vec![platform::best(&name, all, platform)?]
                    };
                    for child in chosen.into_iter().rev() {
                        match kind(child.media_type()) {
                            Kind::Index | Kind::Manifest => left.push((child.clone(), depth + 1)),
                            _ => found.others.push(child.clone()),
                        }
                    }
                }
                Document::Manifest(manifest) => {
                    let config = self.config(manifest.config()).await?;
                    found.images.push(Image {
                        manifest,
                        config,
                        is_attestation: !platform::is_image(&what),
                    });
                }
            }
        }
        Ok(found)
    }

    async fn config(&self, what: &Descriptor) -> Result<Option<ImageConfiguration>> {
        if kind(what.media_type()) != Kind::Config {
            self.blob(what).await?;
            return Ok(None);
        }
        let bytes = self.document(what).await?;
        manifest::read_config(what.digest(), &bytes).map(Some)
    }

    /// Which of the images is to be unpacked: the one that fits the platform best.
    fn target<'d>(
        &self,
        documents: &'d Documents,
        wanted: &Pull<'_>,
    ) -> Result<Option<(&'d ImageManifest, &'d ImageConfiguration)>> {
        let here = Platform::here();
        let platform = wanted.platform.as_ref().unwrap_or(&here);
        let mut best: Option<(usize, _, _)> = None;
        let mut others = Vec::new();
        for image in &documents.images {
            let Some(config) = image.config.as_ref().filter(|_| !image.is_attestation) else {
                continue;
            };
            let own = Platform::of_config(config);
            match platform.rank(&own) {
                Some(rank) if best.as_ref().is_none_or(|(least, ..)| rank < *least) => {
                    best = Some((rank, &image.manifest, config));
                }
                Some(_) => {}
                None => others.push((own.to_string(), &image.manifest, config)),
            }
        }
        let name = self.name;
        match (best, others.first()) {
            (Some((_, manifest, config)), _) => Ok(Some((manifest, config))),
            _ if wanted.all_platforms => Ok(None),
            (None, Some((own, ..))) if wanted.platform.is_some() => {
                let text = format!("{name} is for {own}, and {platform} was asked for");
                Err(Error::said(text))
            }
            (None, Some((own, manifest, config))) => {
                self.progress
                    .tell(format_args!("{name} is for {own}, and this is {here}"));
                Ok(Some((manifest, config)))
            }
            (None, None) => Ok(None),
        }
    }

    /// Unpacks layers as they come.
    async fn unpack(
        &self,
        snapshotter: &str,
        image: &Unpackable,
        seen: watch::Receiver<HashSet<Digest>>,
    ) -> Result<()> {
        let arrived = async |layer: &Digest| {
            let mut seen = seen.clone();
            // A layer that is not loaded at all, since registries do not keep it, is missed by the
            // unpacking itself.
            let _ = seen.wait_for(|all| all.contains(layer)).await;
        };
        unpack::unpack_arriving(self.lease, snapshotter, image, self.progress, arrived).await
    }
}

/// What is to be loaded, each once, in the order in which it is unpacked.
fn blobs(documents: &Documents) -> Vec<Descriptor> {
    let mut seen = HashSet::new();
    let layers = documents
        .images
        .iter()
        .flat_map(|image| image.manifest.layers());
    layers
        .chain(&documents.others)
        .filter(|blob| kind(blob.media_type()) != Kind::ForeignLayer)
        .filter(|blob| seen.insert(blob.digest().clone()))
        .cloned()
        .collect()
}
