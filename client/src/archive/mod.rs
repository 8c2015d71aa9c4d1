//! Images as archives: OCI layouts and what `docker save` writes, as tar files that may be
//! compressed. They come from anybody: names in them are compared and never used as paths.

pub(crate) mod docker;
pub(crate) mod entries;
pub(crate) mod intake;
pub(crate) mod names;
pub(crate) mod source;
pub(crate) mod write;

/// The index of an OCI layout.
pub(crate) const INDEX: &str = "index.json";
/// Docker's list of images.
pub(crate) const DOCKER: &str = "manifest.json";
/// What marks an OCI layout.
pub(crate) const LAYOUT: &str = "oci-layout";
/// Where a layout has its blobs, by the kinds of their digests.
pub(crate) const BLOBS: &str = "blobs/";
