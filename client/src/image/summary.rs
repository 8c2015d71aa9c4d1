//! What is told of an image: for which platforms it is here, and how large.

use std::collections::BTreeMap;

use oci_spec::image::Descriptor;

use super::content;
use super::manifest::{self, Document, Kind, kind};
use super::platform::{self, Platform};
use crate::connection::Connection;

/// What is known of an image.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Those of which the manifest is here.
    pub(crate) platforms: Vec<String>,
    /// Its blobs in bytes, packed as they are.
    pub(crate) size: u64,
    /// What is damaged or missing, if anything is.
    pub(crate) fault: Option<String>,
}

/// Looks at an image. What cannot be read is a fault of the image, and no error: the others are to
/// be told too.
pub(crate) async fn of(connection: &Connection, target: &Descriptor) -> Summary {
    let mut summary = Summary::default();
    let mut sizes = BTreeMap::new();
    let mut waiting = vec![(target.clone(), 0, true)];
    while let Some((descriptor, depth, required)) = waiting.pop() {
        let digest = descriptor.digest();
        match content::info(connection, digest).await {
            Ok(Some(_)) if depth <= manifest::DEEPEST => {}
            Ok(None) if !required => continue,
            _ => {
                summary.fault = Some(format!("{digest} is missing"));
                continue;
            }
        }
        let document = match content::read_document(connection, &descriptor).await {
            Ok(document) => document,
            Err(error) => {
                summary.fault = Some(error.to_string());
                continue;
            }
        };
        sizes.insert(digest.to_string(), descriptor.size());
        match &document {
            Document::Index(index) => {
                let children = index.manifests().iter().rev();
                let images = children.filter(|child| platform::is_image(child));
                // Of an index only what was wanted need be here.
                waiting.extend(images.map(|child| (child.clone(), depth + 1, false)));
            }
            Document::Manifest(manifest) => {
                for part in manifest::children(&document) {
                    if kind(part.media_type()) != Kind::ForeignLayer {
                        sizes.insert(part.digest().to_string(), part.size());
                    }
                }
                let platform = match Platform::of_descriptor(&descriptor) {
                    Some(platform) => Ok(platform),
                    None => content::read_config(connection, manifest.config())
                        .await
                        .map(|config| Platform::of_config(&config)),
                };
                match platform.map(|platform| platform.to_string()) {
                    Ok(platform) if summary.platforms.contains(&platform) => {}
                    Ok(platform) => summary.platforms.push(platform),
                    Err(error) => summary.fault = Some(error.to_string()),
                }
            }
        }
    }
    summary.size = sizes
        .values()
        .fold(0, |sum: u64, size| sum.saturating_add(*size));
    summary
}
