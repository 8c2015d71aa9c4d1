//! What the client reads of an image's documents, and what must hold of whatever it has read.

#[path = "../../client/src/image/manifest.rs"]
pub(crate) mod manifest;
#[path = "../../client/src/image/platform.rs"]
pub(crate) mod platform;

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, MediaType};

use manifest::Document;
use platform::Platform;

use crate::error::Result;

/// What is said to be read: OCI's types, Docker's, and one that is none of them.
const TYPES: [&str; 5] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    manifest::DOCKER_LIST,
    manifest::DOCKER_MANIFEST,
    "text/plain",
];
/// An error is a line for people, however long what was read is.
const LINE: usize = 2048;

/// Reads `bytes` as the document that `choice` says, and goes through what is in it.
pub fn read(choice: u8, bytes: &[u8]) {
    let media_type = MediaType::from(TYPES[usize::from(choice) % TYPES.len()]);
    let digest = format!("sha256:{}", "0".repeat(64));
    let digest = Digest::try_from(digest).expect("a digest");
    let descriptor = Descriptor::new(media_type, bytes.len() as u64, digest.clone());
    if let Some(document) = brief(manifest::read(&descriptor, bytes)) {
        walk(&document);
    }
    if let Some(config) = brief(manifest::read_config(&digest, bytes)) {
        look(&digest, &config);
    }
}

fn brief<T>(read: Result<T>) -> Option<T> {
    read.inspect_err(|error| assert!(error.0.len() < LINE, "{} bytes", error.0.len()))
        .ok()
}

fn walk(document: &Document) {
    let children = manifest::children(document);
    let labels = manifest::labels(document, |_| true);
    assert!(labels.len() <= children.len());
    for value in labels.values() {
        assert!(
            children
                .iter()
                .any(|child| child.digest().as_ref() == value)
        );
    }
    assert!(manifest::labels(document, |_| false).is_empty());
    for child in children {
        let back = brief(manifest::from_wire(&manifest::to_wire(child))).expect("it was read");
        assert_eq!(back.digest(), child.digest());
        assert_eq!(back.media_type(), child.media_type());
    }
    if let Document::Index(index) = document {
        let fitting = platform::fitting(index.manifests(), &Platform::here());
        assert!(fitting.iter().all(|one| platform::is_image(one)));
    }
}

fn look(digest: &Digest, config: &ImageConfiguration) {
    Platform::of_config(config).rank(&Platform::here());
    if let Some(ids) = brief(manifest::diff_ids(digest, config)) {
        assert_eq!(ids.len(), config.rootfs().diff_ids().len());
    }
}
