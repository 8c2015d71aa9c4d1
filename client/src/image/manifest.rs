//! The documents of an image: indexes (Docker's manifest lists), manifests and configurations.
//! They come from anybody, so they are read within limits; and a digest names their very bytes, so
//! they are never written again from what was read.

use std::collections::BTreeMap;

use oci_spec::image::{
    Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest, MediaType,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};

/// The largest document that is read, in bytes; registries refuse larger ones too.
pub(crate) const LARGEST: u64 = 4 << 20;
/// How deep an index may hold indexes.
pub(crate) const DEEPEST: usize = 8;

/// Docker's types, which OCI's mirror.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// As [`DOCKER_LIST`].
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// As [`DOCKER_LIST`].
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// As [`DOCKER_LIST`].
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// As [`DOCKER_LIST`].
pub(crate) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What a blob is, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Manifests for several platforms.
    Index,
    /// One image for one platform.
    Manifest,
    /// How to run it.
    Config,
    /// Part of its file system.
    Layer,
    /// A layer that registries do not keep.
    ForeignLayer,
    /// Anything else.
    Other,
}

/// What a blob of this type is.
pub(crate) fn kind(media_type: &MediaType) -> Kind {
    match media_type {
        MediaType::ImageIndex => Kind::Index,
        MediaType::ImageManifest => Kind::Manifest,
        MediaType::ImageConfig => Kind::Config,
        MediaType::ImageLayer | MediaType::ImageLayerGzip | MediaType::ImageLayerZstd => {
            Kind::Layer
        }
        MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => Kind::ForeignLayer,
        MediaType::Other(name) => match name.as_str() {
            DOCKER_LIST => Kind::Index,
            DOCKER_MANIFEST => Kind::Manifest,
            DOCKER_CONFIG => Kind::Config,
            name if name.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar") => {
                Kind::ForeignLayer
            }
            name if name.starts_with(DOCKER_LAYER) => Kind::Layer,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

/// A document that names others.
#[expect(
    clippy::large_enum_variant,
    reason = "there are few at a time, and none is kept"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// Manifests for several platforms.
    Index(ImageIndex),
    /// One image for one platform.
    Manifest(ImageManifest),
}

/// The fields by which documents are told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Reads the document that a descriptor names. What it is follows from the type in the descriptor;
/// a document that could be read as either is refused, for then two readers could see two images.
///
/// # Errors
/// It is too large, no such document, or of another type than was said; with its digest.
pub(crate) fn read(descriptor: &Descriptor, bytes: &[u8]) -> Result<Document> {
    let digest = descriptor.digest();
    let refuse = |why: &str| Error::said(format!("the manifest {digest} {why}"));
    check_size(digest, bytes)?;
    let outline: Outline = parse(digest, bytes)?;
    if outline.fs_layers.is_some() {
        return Err(refuse("is of Docker's schema 1, which is not supported"));
    }
    let is_index = outline.manifests.is_some();
    if is_index && (outline.config.is_some() || outline.layers.is_some()) {
        return Err(refuse("is both an index and a manifest"));
    }
    let wanted = kind(descriptor.media_type());
    if let Some(own) = &outline.media_type
        && !own.is_empty()
        && own != descriptor.media_type().as_ref()
        && kind(&MediaType::from(own.as_str())) != wanted
    {
        let said = descriptor.media_type();
        return Err(refuse(&format!(
            "says that it is {own}, and was to be {said}"
        )));
    }
    match wanted {
        Kind::Index if is_index => Ok(Document::Index(parse(digest, bytes)?)),
        Kind::Manifest if !is_index => Ok(Document::Manifest(parse(digest, bytes)?)),
        Kind::Index => Err(refuse("was to be an index, and names no manifests")),
        Kind::Manifest => Err(refuse("was to be a manifest, and is an index")),
        _ => {
            let said = descriptor.media_type();
            Err(refuse(&format!("is of an unknown type, {said}")))
        }
    }
}

/// Reads an index whatever names it, such as the `index.json` of a layout.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_index(name: &str, bytes: &[u8]) -> Result<ImageIndex> {
    check_size(name, bytes)?;
    parse(name, bytes)
}

/// Reads a configuration.
///
/// # Errors
/// It is too large or no configuration; with its digest.
pub(crate) fn read_config(digest: &Digest, bytes: &[u8]) -> Result<ImageConfiguration> {
    check_size(digest, bytes)?;
    parse(digest, bytes)
}

/// The diff IDs of a configuration.
///
/// # Errors
/// One is no digest.
pub(crate) fn diff_ids(digest: &Digest, config: &ImageConfiguration) -> Result<Vec<Digest>> {
    let read = |text: &String| {
        Digest::try_from(text.as_str()).map_err(|_| {
            let text = brief(text);
            Error::said(format!(
                "the configuration {digest} holds {text:?} for a digest"
            ))
        })
    };
    config.rootfs().diff_ids().iter().map(read).collect()
}

fn check_size(name: impl std::fmt::Display, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 <= LARGEST {
        return Ok(());
    }
    let length = bytes.len();
    let text = format!("{name} has {length} bytes; a manifest or configuration may have {LARGEST}");
    Err(Error::said(text))
}

fn parse<'a, T: Deserialize<'a>>(name: impl std::fmt::Display, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        // The parser quotes what it met, whole.
        let error = brief(&error.to_string()).to_owned();
        Error::said(format!("{name} cannot be read: {error}"))
    })
}

/// The start of a text that may be of any length.
fn brief(text: &str) -> &str {
    match text.char_indices().nth(200) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// What a document names, in its order; a manifest's configuration first.
pub(crate) fn children(document: &Document) -> Vec<&Descriptor> {
    match document {
        Document::Index(index) => index.manifests().iter().collect(),
        Document::Manifest(manifest) => std::iter::once(manifest.config())
            .chain(manifest.layers())
            .collect(),
    }
}

/// The labels by which a document's blob keeps those children for which `keep` says so, by the
/// names that containerd's own clients use. Layers that registries do not keep are not held. The
/// numbers count all children, so that what an earlier choice kept stays.
pub(crate) fn labels(
    document: &Document,
    keep: impl Fn(&Descriptor) -> bool,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let (mut manifests, mut layers, mut others) = (0, 0, 0);
    for child in children(document) {
        let (prefix, count) = match kind(child.media_type()) {
            Kind::Config => ("config", None),
            Kind::Index | Kind::Manifest => ("m.", Some(&mut manifests)),
            Kind::Layer => ("l.", Some(&mut layers)),
            Kind::ForeignLayer => continue,
            Kind::Other => ("", Some(&mut others)),
        };
        let mut name = format!("containerd.io/gc.ref.content.{prefix}");
        if let Some(count) = count {
            name += &count.to_string();
            *count += 1;
        }
        if keep(child) {
            labels.insert(name, child.digest().to_string());
        }
    }
    labels
}

/// The descriptor as the API carries it.
pub(crate) fn to_wire(descriptor: &Descriptor) -> core_api::types::Descriptor {
    let annotations = descriptor.annotations().clone().unwrap_or_default();
    core_api::types::Descriptor {
        media_type: descriptor.media_type().to_string(),
        digest: descriptor.digest().to_string(),
        size: i64::try_from(descriptor.size()).unwrap_or(i64::MAX),
        annotations: annotations.into_iter().collect(),
    }
}

/// The descriptor that the API carried.
///
/// # Errors
/// It holds no digest.
pub(crate) fn from_wire(descriptor: &core_api::types::Descriptor) -> Result<Descriptor> {
    let digest = Digest::try_from(descriptor.digest.as_str()).map_err(|_| {
        let text = brief(&descriptor.digest);
        Error::said(format!("the daemon names {text:?} as a digest"))
    })?;
    let size = u64::try_from(descriptor.size).unwrap_or_default();
    let media_type = MediaType::from(descriptor.media_type.as_str());
    let mut made = Descriptor::new(media_type, size, digest);
    if !descriptor.annotations.is_empty() {
        let annotations = descriptor.annotations.clone();
        made.set_annotations(Some(annotations.into_iter().collect()));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn named(media_type: &str) -> Descriptor {
        Descriptor::new(MediaType::from(media_type), 1, Digest::try_from(A).unwrap())
    }

    fn manifest() -> String {
        let layer =
            |media_type| format!(r#"{{"mediaType":"{media_type}","digest":"{B}","size":3}}"#);
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
            layer(DOCKER_CONFIG),
            layer(DOCKER_LAYER_GZIP),
            layer("application/vnd.oci.image.layer.v1.tar+zstd")
        )
    }

    fn index() -> String {
        let entry = format!(
            r#"{{"mediaType":"{DOCKER_MANIFEST}","digest":"{B}","size":3,
                "platform":{{"os":"linux","architecture":"riscv128","variant":"x"}}}}"#
        );
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[{entry},{entry}]}}"#
        )
    }

    fn refused(media_type: &str, text: &str) -> String {
        let said = read(&named(media_type), text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(said.contains(A), "{said}");
        said
    }

    #[test]
    fn documents_name_their_children() {
        let read_as = |media_type, text: &str| read(&named(media_type), text.as_bytes()).unwrap();
        let of_manifest = labels(&read_as(DOCKER_MANIFEST, &manifest()), |_| true);
        let names: Vec<_> = of_manifest.keys().map(String::as_str).collect();
        let prefix = "containerd.io/gc.ref.content.";
        assert_eq!(
            names,
            ["config", "l.0", "l.1"].map(|end| format!("{prefix}{end}"))
        );
        let of_index = labels(&read_as(DOCKER_LIST, &index()), |_| true);
        let names: Vec<_> = of_index.keys().map(String::as_str).collect();
        assert_eq!(names, ["m.0", "m.1"].map(|end| format!("{prefix}{end}")));
        assert!(labels(&read_as(DOCKER_LIST, &index()), |_| false).is_empty());
        read_as("application/vnd.oci.image.manifest.v1+json", &manifest());
    }

    #[test]
    fn what_is_no_such_document_is_refused_by_its_digest() {
        let oci = "application/vnd.oci.image.index.v1+json";
        assert!(refused(DOCKER_MANIFEST, &index()).contains("says that it is"));
        assert!(refused(DOCKER_LIST, &manifest()).contains("names no manifests"));
        assert!(refused(oci, r#"{"manifests":[],"layers":[]}"#).contains("both"));
        assert!(refused(oci, r#"{"schemaVersion":1,"fsLayers":[]}"#).contains("schema 1"));
        assert!(refused("text/plain", "{}").contains("unknown type"));
        assert!(refused(oci, "").contains("cannot be read"));
        let large = " ".repeat(usize::try_from(LARGEST).unwrap() + 1);
        assert!(refused(oci, &large).contains("may have 4194304"));
        let wrong = manifest().replace(B, "sha256:../../etc/passwd");
        assert!(refused(DOCKER_MANIFEST, &wrong).contains("cannot be read"));
        let long = manifest().replace(B, &format!("sha256:{}", "/".repeat(5000)));
        assert!(refused(DOCKER_MANIFEST, &long).len() < 400);
    }

    #[test]
    fn the_wire_keeps_a_descriptor() {
        let there = named(DOCKER_MANIFEST);
        assert_eq!(from_wire(&to_wire(&there)).unwrap(), there);
        from_wire(&core_api::types::Descriptor::default()).unwrap_err();
    }

    proptest! {
        #[test]
        fn damaged_documents_never_panic(
            at in 0usize..700, byte: u8, cut in 0usize..700, is_index: bool, as_index: bool,
        ) {
            let mut bytes = if is_index { index() } else { manifest() }.into_bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut.max(1));
            let as_type = if as_index { DOCKER_LIST } else { DOCKER_MANIFEST };
            if let Ok(document) = read(&named(as_type), &bytes) {
                let _ = labels(&document, |_| true);
            }
            let _ = read_config(named(as_type).digest(), &bytes);
        }

        #[test]
        fn any_json_never_panics(text in r#"[\{\}\[\]:,"a-z0-9\\]{0,80}"#) {
            let _ = read(&named(DOCKER_LIST), text.as_bytes());
            let _ = read_config(named(DOCKER_LIST).digest(), text.as_bytes());
        }
    }
}
