//! Trees as texts, to be compared entry by entry with everything that belongs to an entry.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be read ends a test"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Each path below a root, and what is there.
pub type Tree = BTreeMap<PathBuf, String>;

/// Describes a tree, but for its root; with times in whole seconds where they are `whole`.
pub fn describe(root: &Path, whole: bool) -> Tree {
    let mut tree = Tree::new();
    let mut links = HashMap::new();
    add(root, Path::new(""), whole, &mut links, &mut tree);
    tree
}

fn add(root: &Path, below: &Path, whole: bool, links: &mut HashMap<u64, PathBuf>, tree: &mut Tree) {
    let mut names: Vec<_> = fs::read_dir(root.join(below))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let below = below.join(name);
        let path = root.join(&below);
        let found = fs::symlink_metadata(&path).unwrap();
        let kind = found.file_type();
        let nanoseconds = if whole { 0 } else { found.mtime_nsec() };
        let mut text = format!(
            "{:o} {}:{} {}.{nanoseconds:09}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime()
        );
        if kind.is_symlink() {
            text += &format!(" -> {:?}", fs::read_link(&path).unwrap());
        } else if kind.is_file() {
            let data = fs::read(&path).unwrap();
            let sum = data.iter().fold(0_u64, |sum, byte| {
                sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte)
            });
            text += &format!(" {} bytes, sum {sum:x}", data.len());
        } else if kind.is_char_device() || kind.is_block_device() {
            text += &format!(" device {}", found.rdev());
        }
        if !kind.is_dir() && found.nlink() > 1 {
            let first = links.entry(found.ino()).or_insert_with(|| below.clone());
            text += &format!(" is {}", first.display());
        }
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(&path)
            .unwrap();
        let mut attributes = sys::xattr::list(&file).unwrap();
        attributes.sort();
        for name in attributes {
            let value = sys::xattr::get(&file, &name).unwrap();
            text += &format!(" {}={value:?}", name.display());
        }
        tree.insert(below.clone(), text);
        if kind.is_dir() {
            add(root, &below, whole, links, tree);
        }
    }
}

/// What is not the same in two trees.
pub fn difference(one: &Tree, other: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in one {
        match other.get(path) {
            None => found.push(format!("only in one: {} {text}", path.display())),
            Some(there) if there != text => {
                found.push(format!("{}: {text} / {there}", path.display()));
            }
            Some(_) => {}
        }
    }
    for (path, text) in other {
        if !one.contains_key(path) {
            found.push(format!("only in the other: {} {text}", path.display()));
        }
    }
    found
}
