//! Which inodes a layer has made so far. Filesystems number inodes densely, so a bit each in
//! words of 64 takes little: a million new files about 300 kB.

use std::collections::HashMap;

/// A set of inode numbers of one filesystem.
#[derive(Debug, Default)]
pub(super) struct Inodes(HashMap<u64, u64>);

impl Inodes {
    /// Adds one; answers whether it is new.
    pub(super) fn insert(&mut self, inode: u64) -> bool {
        let word = self.0.entry(inode / 64).or_default();
        let bit = 1 << (inode % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Whether it is there.
    pub(super) fn contains(&self, inode: u64) -> bool {
        self.0
            .get(&(inode / 64))
            .is_some_and(|word| word & (1 << (inode % 64)) != 0)
    }
}
