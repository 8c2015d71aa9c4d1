//! What a tree takes on disk.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk: blocks, not lengths.
    pub size: u64,
    /// Inodes; one with several names counts once.
    pub inodes: u64,
}

/// Measures the tree at `path`, itself included.
///
/// # Errors
/// What cannot be read, with its path. What vanishes meanwhile does not count.
pub fn measure(path: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    add(path, &mut usage, &mut HashSet::new())?;
    Ok(usage)
}

fn add(path: &Path, usage: &mut Usage, linked: &mut HashSet<(u64, u64)>) -> io::Result<()> {
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(told)?,
    };
    let is_new = found.is_dir() || found.nlink() == 1 || linked.insert((found.dev(), found.ino()));
    if is_new {
        usage.size += found.blocks() * 512;
        usage.inodes += 1;
    }
    if found.is_dir() {
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(told)?,
        };
        for entry in entries {
            add(&entry.map_err(told)?.path(), usage, linked)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("in/a"), [1; 9000]).unwrap();
        let once = measure(dir.path()).unwrap();
        fs::hard_link(dir.path().join("in/a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("in", dir.path().join("loop")).unwrap();
        let twice = measure(dir.path()).unwrap();
        assert_eq!((once.inodes, twice.inodes), (3, 4));
        assert_eq!(once.size, twice.size, "a short symlink has no blocks");
        assert!(once.size >= 9000);
    }
}
