//! What `docker save` writes: a list of images, each a configuration and layers by the names of
//! their files. The manifest, which it does not write, is made here; byte for byte the one that
//! containerd's client makes, so that an image imported by either is the same.

use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType};
use serde::{Deserialize, Serialize};

use super::DOCKER;
use super::intake::{Intake, Stored};
use super::source::Compression;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::manifest::{self, Document};
use crate::image::{digest, record, upload};

/// An image of the list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    /// File of the configuration.
    pub(crate) config: String,
    /// Its names.
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    /// Files of the layers, the lowest first.
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// Reads the list.
///
/// # Errors
/// It is none.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Listed>> {
    let unreadable = |error| Error::said(format!("{DOCKER} in the archive: {error}"));
    serde_json::from_slice(bytes).map_err(unreadable)
}

impl Listed {
    /// The whole names.
    ///
    /// # Errors
    /// One is no name.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let tags = self.repo_tags.iter().flatten();
        let whole = tags.map(|tag| {
            let named = record::normalise(tag);
            named.map_err(|error| Error::said(format!("{DOCKER} in the archive: {error}")))
        });
        whole.collect()
    }

    /// Makes the manifest of the image a blob, and answers what names it.
    ///
    /// # Errors
    /// A file of the image is not in the archive, or the daemon's refusal.
    pub(crate) async fn adopt(
        &self,
        connection: &Connection,
        intake: &Intake,
    ) -> Result<Descriptor> {
        let file = |name: &str| {
            let missing = || {
                Error::said(format!(
                    "{name:?} is missing in the archive, and {DOCKER} names it"
                ))
            };
            intake.file(name).ok_or_else(missing)
        };
        let config = file(&self.config)?;
        if config.size > manifest::LARGEST {
            let (name, size, largest) = (&self.config, config.size, manifest::LARGEST);
            let text =
                format!("the configuration {name:?} has {size} bytes; it may have {largest}");
            return Err(Error::said(text));
        }
        let layers = self.layers.iter().flatten();
        let layers: Vec<Descriptor> = layers
            .map(|name| file(name).map(|stored| descriptor(layer_type(stored.compression), stored)))
            .collect::<Result<_>>()?;
        let made = made(descriptor(manifest::DOCKER_CONFIG, config), layers)?;
        let unwritable = |error: serde_json::Error| Error::said(error.to_string());
        let bytes = serde_json::to_vec(&made).map_err(unwritable)?;
        let media_type = MediaType::from(manifest::DOCKER_MANIFEST);
        let target = Descriptor::new(media_type, bytes.len() as u64, digest::of(&bytes));
        let labels = manifest::labels(&Document::Manifest(made), |_| true);
        upload::put(connection, &target, &bytes, labels).await?;
        Ok(target)
    }
}

fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => manifest::DOCKER_LAYER,
        Compression::Gzip => manifest::DOCKER_LAYER_GZIP,
        // Docker has no such type.
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

fn descriptor(media_type: &str, stored: &Stored) -> Descriptor {
    Descriptor::new(
        MediaType::from(media_type),
        stored.size,
        stored.digest.clone(),
    )
}

fn made(config: Descriptor, layers: Vec<Descriptor>) -> Result<ImageManifest> {
    let built = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::from(manifest::DOCKER_MANIFEST))
        .config(config)
        .layers(layers)
        .build();
    built.map_err(|error| Error::said(format!("the manifest: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::Digest;

    #[test]
    fn the_manifest_is_containerds() {
        let part = |media_type: &str, size, digits: &str| {
            let digest = Digest::try_from(format!("sha256:{digits}")).unwrap();
            Descriptor::new(MediaType::from(media_type), size, digest)
        };
        let layers = [
            (
                1_987_584,
                "7b7dc77916b03df86e96649f8f32f29661eb097f01f0b65c864fbefb53940403",
            ),
            (
                3072,
                "557d5cee82dd35dfdaf7e88084559cefbd18cb31ab00b99f6267ba59b0ce3312",
            ),
        ];
        let layers = layers.map(|(size, digits)| part(manifest::DOCKER_LAYER, size, digits));
        let config = "a38bfb59c86c61c269ef5c426ac91b8f190dd3243f37dbd9b768ad8140933304";
        let config = part(manifest::DOCKER_CONFIG, 557, config);
        let made = made(config, layers.to_vec()).unwrap();
        // What containerd 1.6's client made of the same files.
        let theirs = "sha256:b91cc415386fe98b933f5c88b0bca80224944f7c330c94f3054140f89c2fa3ec";
        assert_eq!(
            digest::of(&serde_json::to_vec(&made).unwrap()).to_string(),
            theirs
        );
    }

    #[test]
    fn lists_are_read() {
        let listed = read(br#"[{"Config":"c.json","RepoTags":null,"Layers":["l"]}]"#).unwrap();
        assert!(listed[0].names().unwrap().is_empty());
        let listed = read(br#"[{"Config":"c","RepoTags":["a:1","x.y/b:2"]}]"#).unwrap();
        assert_eq!(
            listed[0].names().unwrap(),
            ["docker.io/library/a:1", "x.y/b:2"]
        );
        for wrong in ["", "{}", r#"[{"RepoTags":[]}]"#] {
            read(wrong.as_bytes()).unwrap_err();
        }
        let listed = read(br#"[{"Config":"c","RepoTags":["../x"]}]"#).unwrap();
        listed[0].names().unwrap_err();
    }
}
