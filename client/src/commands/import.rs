//! `wherry import`: takes images out of an archive.

use std::collections::BTreeMap;

use clap::Args;
use oci_spec::image::{Descriptor, ImageManifest};

use crate::archive::intake::{self, Intake};
use crate::archive::names;
use crate::archive::{INDEX, docker, source};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::lease::{Lease, under_lease};
use crate::image::platform::{self, Platform};
use crate::image::progress::Progress;
use crate::image::snapshot;
use crate::image::tree::{self, Which};
use crate::image::unpack::{self, Unpackable};
use crate::image::{content, digest, manifest, record};
use crate::{output, signals};

/// Take images out of an archive
///
/// The archive is an OCI layout or what `docker save` writes, as a tar file, compressed by gzip or
/// zstd or not. The names of the images are written to stdout.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The archive; - is stdin
    #[arg(value_name = "FILE")]
    file: String,
    /// Name of the image, when the archive holds one
    #[arg(long, value_name = "NAME", conflicts_with = "base_name")]
    name: Option<String>,
    /// What is put before the tag of an image of which the archive tells only that
    #[arg(long, value_name = "NAME")]
    base_name: Option<String>,
    /// Platform to take where there are several [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Take all platforms
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Leave the layers packed
    #[arg(long)]
    no_unpack: bool,
    /// Snapshotter that unpacks the layers [default: the namespace's, or overlayfs]
    #[arg(long, value_name = "NAME")]
    snapshotter: Option<String>,
    /// Do not tell how far it is
    #[arg(short, long)]
    quiet: bool,
}

/// An image of the archive and its names.
struct Named {
    names: Vec<String>,
    target: Descriptor,
}

impl Import {
    /// Imports.
    ///
    /// # Errors
    /// The archive is broken, lacks something, or the daemon refuses it. No image is made then.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        if let Some(name) = &self.name {
            record::normalise(name)?;
        }
        let pieces = source::open(&self.file)?;
        let progress = Progress::new(self.quiet);
        under_lease(connection, async |lease| {
            signals::unless_interrupted(self.work(lease, pieces, &progress)).await
        })
        .await
    }

    async fn work(&self, lease: &Lease, pieces: source::Pieces, progress: &Progress) -> Result<()> {
        let connection = lease.connection();
        let intake = intake::take(connection, pieces, progress).await?;
        let images = self.images(connection, &intake).await?;
        let which = if self.all_platforms {
            Which::All
        } else {
            Which::Best(self.platform())
        };
        // Everything is proved to be there before any image is made.
        for image in &images {
            let tree = tree::keep(connection, &image.target, &which).await?;
            if !self.no_unpack {
                self.unpack(lease, &tree.manifests, progress).await?;
            }
        }
        for image in &images {
            for name in &image.names {
                record::set(connection, name, &image.target).await?;
                let short = digest::short(image.target.digest().as_ref());
                progress.tell(format_args!("{name} is {short}"));
                output::say(name)?;
            }
        }
        Ok(())
    }

    fn platform(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::here)
    }

    /// The images of the archive, by its index or by Docker's list.
    async fn images(&self, connection: &Connection, intake: &Intake) -> Result<Vec<Named>> {
        match (&intake.index, &intake.docker) {
            (Some(index), _) => self.of_layout(index),
            (None, Some(list)) => self.of_docker(connection, intake, list).await,
            (None, None) => Err(Error::said(format!(
                "{} is no archive of images: it holds neither {INDEX} nor manifest.json",
                self.file
            ))),
        }
    }

    fn of_layout(&self, index: &[u8]) -> Result<Vec<Named>> {
        let index = manifest::read_index("index.json in the archive", index)?;
        let entries = index.manifests();
        if let Some(name) = &self.name {
            // Several manifests without a word about platforms would be several images.
            let fitting = platform::fitting(entries, &self.platform());
            let only = match (entries.as_slice(), fitting.as_slice()) {
                ([only], _) => only,
                (_, &[only]) => only,
                _ => return Err(several(entries.len())),
            };
            let mut target = only.clone();
            target.set_annotations(None);
            let names = vec![record::normalise(name)?];
            return Ok(vec![Named { names, target }]);
        }
        let mut by_name: BTreeMap<String, Vec<Descriptor>> = BTreeMap::new();
        let mut tags = Vec::new();
        for entry in entries {
            let annotations = entry.annotations().clone().unwrap_or_default();
            match names::of_annotations(&annotations, self.base_name.as_deref())? {
                Some(name) => by_name.entry(name).or_default().push(entry.clone()),
                None => tags.extend(annotations.get(names::REF).cloned()),
            }
        }
        if by_name.is_empty() {
            return Err(names::missing(&tags));
        }
        let chosen = by_name.into_iter().map(|(name, entries)| {
            let target = match entries.as_slice() {
                [only] => only,
                several => platform::best(&name, several, &self.platform())?,
            };
            let mut target = target.clone();
            // The names in the archive do not belong to what they name.
            target.set_annotations(None);
            Ok(Named {
                names: vec![name],
                target,
            })
        });
        chosen.collect()
    }

    async fn of_docker(
        &self,
        connection: &Connection,
        intake: &Intake,
        list: &[u8],
    ) -> Result<Vec<Named>> {
        let list = docker::read(list)?;
        if self.name.is_some() && list.len() != 1 {
            return Err(several(list.len()));
        }
        let mut images = Vec::new();
        for listed in &list {
            let mut names = listed.names()?;
            if let Some(name) = self
                .name
                .as_ref()
                .or_else(|| self.base_name.as_ref().filter(|_| names.is_empty()))
            {
                names = vec![record::normalise(name)?];
            }
            if !names.is_empty() {
                let target = listed.adopt(connection, intake).await?;
                images.push(Named { names, target });
            }
        }
        if images.is_empty() {
            return Err(names::missing(&[]));
        }
        Ok(images)
    }

    /// Unpacks what this machine, or the one that was named, can run.
    async fn unpack(
        &self,
        lease: &Lease,
        found: &[ImageManifest],
        progress: &Progress,
    ) -> Result<()> {
        let connection = lease.connection();
        let wanted = self.platform();
        let mut best: Option<(usize, Unpackable)> = None;
        let mut others = Vec::new();
        for one in found {
            let config = one.config();
            if !matches!(manifest::kind(config.media_type()), manifest::Kind::Config) {
                continue;
            }
            let config = content::read_config(connection, config).await?;
            let platform = Platform::of_config(&config);
            match wanted.rank(&platform) {
                Some(rank) if best.as_ref().is_none_or(|(other, _)| rank < *other) => {
                    best = Some((rank, Unpackable::new(one.clone(), &config)?));
                }
                Some(_) => {}
                None => others.push(platform.to_string()),
            }
        }
        let Some((_, image)) = best else {
            if !others.is_empty() {
                let others = others.join(", ");
                progress.tell(format_args!(
                    "not unpacked: it is for {others}, not for {wanted}"
                ));
            }
            return Ok(());
        };
        let snapshotter = snapshot::snapshotter(connection, self.snapshotter.as_deref()).await?;
        unpack::unpack(lease, &snapshotter, &image, progress).await
    }
}

fn several(count: usize) -> Error {
    let text = format!("--name names one image, and the archive holds {count}");
    Error::said(text)
}
