//! What keeps a layer from being unpacked or made, and what clients are told.

use std::fmt;
use std::io;
use std::path::Path;

use tonic::Status;

use crate::status;

/// Why it did not work.
#[derive(Debug)]
pub enum Fault {
    /// The layer is broken or hostile; the text names the entry.
    Layer(String),
    /// The disk has damaged the layer.
    Damaged(String),
    /// There is no room.
    Full(String),
    /// The kernel refused.
    Io(String, io::Error),
}

impl Fault {
    /// A failure while `what` was being done.
    pub fn io(what: impl fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full(format!("{what}: {error}"))
            }
            _ => Self::Io(what.to_string(), error),
        }
    }

    /// A layer that says what cannot be.
    pub fn layer(path: &[u8], what: impl fmt::Display) -> Self {
        Self::Layer(format!("entry {:?}: {what}", String::from_utf8_lossy(path)))
    }

    /// What the store says of a blob that it has looked at.
    pub fn damaged(refusal: Status) -> Self {
        Self::Damaged(refusal.message().to_owned())
    }

    /// A failure at a path of ours.
    pub fn at(path: &Path, error: impl Into<io::Error>) -> Self {
        Self::io(path.display(), error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(text) | Self::Damaged(text) | Self::Full(text) => f.write_str(text),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Layer(text) => status::invalid(text),
            Fault::Damaged(text) => Self::data_loss(text),
            Fault::Full(text) => Self::resource_exhausted(text),
            other @ Fault::Io(..) => status::unknown(other),
        }
    }
}
