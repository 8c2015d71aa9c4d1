//! `wherry export`: puts images into an archive that every engine reads.

use std::collections::{BTreeMap, HashMap};

use clap::Args;
use oci_spec::image::{Descriptor, ImageIndexBuilder};

use super::tell;
use crate::archive::docker::Listed;
use crate::archive::names::{NAME, REF};
use crate::archive::write::Archive;
use crate::archive::{BLOBS, DOCKER, INDEX, LAYOUT};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::lease::{Lease, under_lease};
use crate::image::manifest::{self, Kind};
use crate::image::platform::Platform;
use crate::image::progress::Progress;
use crate::image::tree::{self, Which};
use crate::image::{content, digest, record};
use crate::signals;

/// Put images into an archive
///
/// The archive is an OCI layout as a tar file, which `docker load` takes as well. The same images
/// give the same bytes.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The archive; - is stdout
    #[arg(short, long, value_name = "FILE")]
    output: String,
    /// Platform to put into it where there are several [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Put all platforms into it
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Do not tell how far it is
    #[arg(short, long)]
    quiet: bool,
    /// Images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What goes into the archive.
#[derive(Default)]
struct Content {
    /// Of the layout's index.
    entries: Vec<Descriptor>,
    /// Docker's list, by the digest of the configuration.
    listed: BTreeMap<String, Listed>,
    /// By the name of its file.
    blobs: BTreeMap<String, Descriptor>,
}

impl Export {
    /// Exports.
    ///
    /// # Errors
    /// An image or a blob of it is not there, or the archive cannot be written.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let mut archive = Archive::create(&self.output)?;
        let is_stream = archive.is_stream();
        // What is being read must not be collected.
        let written = under_lease(connection, async |lease| {
            let work = self.work(lease, &mut archive);
            if is_stream {
                // Who waits for a reader is ended by the signal itself.
                return work.await;
            }
            signals::unless_interrupted(work).await
        });
        written.await?;
        archive.finish()
    }

    async fn work(&self, lease: &Lease, archive: &mut Archive) -> Result<()> {
        let content = self.content(lease).await?;
        let progress = Progress::new(self.quiet || self.output == "-");
        self.write(lease.connection(), &content, archive, &progress)
            .await
    }

    async fn content(&self, lease: &Lease) -> Result<Content> {
        let mut content = Content::default();
        let mut missing = Ok(());
        let mut names = BTreeMap::new();
        for typed in &self.names {
            match record::find(lease.connection(), typed).await? {
                Some(image) => drop(names.insert(image.name.clone(), image)),
                None => tell(
                    &mut missing,
                    Err(Error::said(format!("{typed}: no such image"))),
                ),
            }
        }
        missing?;
        for (name, image) in names {
            content
                .add(self, lease, &name, record::target(&image)?)
                .await?;
        }
        Ok(content)
    }

    async fn write(
        &self,
        connection: &Connection,
        content: &Content,
        archive: &mut Archive,
        progress: &Progress,
    ) -> Result<()> {
        archive.whole(LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .manifests(content.entries.clone())
            .build()
            .map_err(|error| Error::said(format!("{INDEX}: {error}")))?;
        // By way of a value, whose keys are in order.
        archive.whole(INDEX, &json(&index)?)?;
        let listed: Vec<_> = content.listed.values().collect();
        archive.whole(DOCKER, &json(&listed)?)?;
        archive.folder(BLOBS)?;
        let mut folder = "";
        for (path, blob) in &content.blobs {
            let kind = path.rsplit_once('/').map_or("", |(kind, _)| kind);
            if kind != folder {
                archive.folder(&format!("{kind}/"))?;
                folder = kind;
            }
            archive.file(path, blob.size())?;
            let name = digest::short(blob.digest().as_ref());
            let part = progress.part(name, "writing", Some(blob.size()));
            let mut reading = content::stream(connection, blob.digest(), 0).await?;
            while let Some(bytes) = reading.next().await? {
                part.more(bytes.len() as u64);
                archive.data(&bytes)?;
            }
        }
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let text = serde_json::to_value(value).and_then(|value| serde_json::to_vec(&value));
    text.map_err(|error| Error::said(error.to_string()))
}

/// Where a layout has a blob.
fn path(blob: &Descriptor) -> String {
    let digest = blob.digest();
    format!("{BLOBS}{}/{}", digest.algorithm(), digest.digest())
}

impl Content {
    async fn add(
        &mut self,
        export: &Export,
        lease: &Lease,
        name: &str,
        target: Descriptor,
    ) -> Result<()> {
        let connection = lease.connection();
        let about = |error: Error| Error::said(format!("{name}: {error}"));
        let wanted = export.platform.clone().unwrap_or_else(Platform::here);
        let which = if export.all_platforms {
            Which::All
        } else {
            Which::Best(wanted.clone())
        };
        let tree = tree::walk(connection, &target, &which)
            .await
            .map_err(about)?;
        for blob in tree.blobs() {
            lease.hold("content", blob.digest().as_ref()).await?;
            let info = content::info(connection, blob.digest()).await?;
            let size = info
                .map(|info| info.size)
                .and_then(|size| u64::try_from(size).ok());
            if size != Some(blob.size()) {
                let digest = blob.digest();
                let why = match size {
                    None => "is not here".to_owned(),
                    Some(size) => format!("has {size} bytes, not {}", blob.size()),
                };
                return Err(about(Error::said(format!("the blob {digest} {why}"))));
            }
            self.blobs.insert(path(blob), blob.clone());
        }
        // Docker knows one platform of an image.
        let mut best: Option<(usize, Listed)> = None;
        for found in &tree.manifests {
            if manifest::kind(found.config().media_type()) != Kind::Config {
                continue;
            }
            let config = content::read_config(connection, found.config()).await?;
            let rank = wanted
                .rank(&Platform::of_config(&config))
                .unwrap_or(usize::MAX);
            if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                let listed = Listed {
                    config: path(found.config()),
                    repo_tags: Some(Vec::new()),
                    layers: Some(found.layers().iter().map(path).collect()),
                };
                best = Some((rank, listed));
            }
        }
        if let Some((_, listed)) = best {
            let config = listed.config.clone();
            let listed = self.listed.entry(config).or_insert(listed);
            let tags = listed.repo_tags.get_or_insert_default();
            tags.extend(Some(name.to_owned()).filter(|name| !name.contains('@')));
        }
        let mut entry = target;
        let mut annotations: HashMap<String, String> =
            entry.annotations().clone().unwrap_or_default();
        annotations.insert(NAME.to_owned(), name.to_owned());
        if let Some(tag) = tag(name) {
            annotations.insert(REF.to_owned(), tag.to_owned());
        }
        entry.set_annotations(Some(annotations));
        self.entries.push(entry);
        Ok(())
    }
}

/// The tag of a whole name.
fn tag(name: &str) -> Option<&str> {
    let name = name.split('@').next().unwrap_or(name);
    let (_, tag) = name.rsplit_once(':')?;
    Some(tag).filter(|tag| record::is_tag(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_tag_or_not() {
        assert_eq!(tag("localhost:5000/a:1"), Some("1"));
        assert_eq!(tag("localhost:5000/a"), None);
        assert_eq!(tag("x.y/a:1@sha256:aa"), Some("1"));
    }
}
