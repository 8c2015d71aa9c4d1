//! The reserve of free space that unpacking does not touch.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::fstatvfs;

use super::fault::Fault;

/// How many bytes are written between two looks at the filesystem.
const STEP: u64 = 16 << 20;
/// What a new inode is taken to cost.
const INODE: u64 = 4096;

/// Watches the free space of one filesystem.
#[derive(Debug)]
pub(super) struct Space {
    /// The tree that is written to, for whoever is told.
    tree: PathBuf,
    reserve: u64,
    written: u64,
}

impl Space {
    /// Leaves at least `reserve` bytes free, but for a few megabytes.
    pub(super) fn new(tree: &Path, reserve: u64) -> Self {
        Self {
            tree: tree.to_owned(),
            reserve,
            // The first write looks.
            written: STEP,
        }
    }

    /// To be called before `bytes` are written to the filesystem that `folder` is on.
    pub(super) fn take(&mut self, folder: impl AsFd, bytes: u64) -> Result<(), Fault> {
        self.written = self.written.saturating_add(bytes);
        if self.written < STEP || self.reserve == 0 {
            return Ok(());
        }
        self.written = 0;
        let found = fstatvfs(folder).map_err(|errno| Fault::io("free space", errno))?;
        let free = found.blocks_available() * found.fragment_size();
        if free.saturating_sub(bytes) < self.reserve {
            return Err(Fault::Full(format!(
                "unpacking into {} stopped: {} MiB are free on the disk, and {} MiB are kept free \
                 (`unpack_reserve` in the configuration)",
                self.tree.display(),
                free >> 20,
                self.reserve >> 20
            )));
        }
        Ok(())
    }

    /// To be called for each entry, which costs an inode.
    pub(super) fn take_inode(&mut self, folder: impl AsFd) -> Result<(), Fault> {
        self.take(folder, INODE)
    }
}
