//! The content store: blobs by digest, and the uploads that become blobs.
//!
//! [`blobs`] and [`ingest`] are the files; `store/content` has what each namespace may see of
//! them. Every namespace sees only what was written in it, though the files are shared.

pub mod blobs;
pub mod digest;
pub mod ingest;

use std::io;
use std::path::Path;

use tonic::Status;

/// A failure of the file system as the answer to a client: `ResourceExhausted` when there is no
/// room, else of no class; it names the path.
pub(crate) fn told(path: &Path, error: &io::Error) -> Status {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Status::resource_exhausted(text)
        }
        _ => Status::unknown(text),
    }
}
