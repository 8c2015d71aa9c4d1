//! What an archive says about one file.

use crate::diff::fault::Fault;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file with data.
    Regular,
    /// Another name of an earlier entry.
    Link,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A folder.
    Folder,
    /// A named pipe.
    Fifo,
}

/// A moment: seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// May be negative.
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanoseconds: u32,
}

/// A part of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// One entry, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As the archive has it.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with set-uid, set-gid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When its data changed last.
    pub modified: Moment,
    /// When it was read last, if the archive says so.
    pub accessed: Option<Moment>,
    /// Where a link points to.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// The size of the file.
    pub size: u64,
    /// Extended attributes, with the class in their names.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where a sparse file has data; `None` for any other.
    pub extents: Option<Vec<Extent>>,
}

/// The data of an entry, for whoever makes the file.
pub trait Data {
    /// Calls `take` with all of it, piece by piece.
    ///
    /// # Errors
    /// What is wrong with the archive; what `take` answers.
    fn each(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault>;
}
