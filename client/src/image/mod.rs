//! Images as a client of containerd handles them: documents, blobs, records and snapshots.

pub(crate) mod content;
pub(crate) mod digest;
pub(crate) mod inside;
pub(crate) mod inventory;
pub(crate) mod keepers;
pub(crate) mod lease;
pub(crate) mod manifest;
pub(crate) mod platform;
pub(crate) mod progress;
pub(crate) mod ready;
pub(crate) mod record;
pub(crate) mod sizes;
pub(crate) mod snapshot;
pub(crate) mod summary;
pub(crate) mod tree;
pub(crate) mod unpack;
pub(crate) mod upload;
