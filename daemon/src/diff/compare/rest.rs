//! What a tree has, and has not, beside what the entries of its layer stand for.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::super::fault::Fault;
use super::{Comparison, ENOUGH};

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 64 << 10;

impl Comparison<'_> {
    /// What the tree has, and has not, beside the entries.
    pub(super) fn rest(&mut self) -> Result<(), Fault> {
        self.more(Path::new(""))?;
        if let Some(parent) = &self.tree.copied {
            self.less(parent, Path::new(""))?;
        }
        Ok(())
    }

    /// Goes through a folder for what no entry stands for; answers whether there is anything in it
    /// that an entry does stand for.
    fn more(&mut self, below: &Path) -> Result<bool, Fault> {
        let mut any = false;
        for (path, there) in children(&self.tree.root, below)? {
            if self.wrong.len() >= ENOUGH {
                return Ok(true);
            }
            let known = self.seen.contains(there.ino());
            let inner = there.is_dir() && self.more(&path)?;
            if known || inner {
                any = true;
                continue;
            }
            let what = match &self.tree.copied {
                None => Some("is not in the layer".to_owned()),
                Some(parent) => not_a_copy(&parent.join(&path), &self.tree.root.join(&path))?,
            };
            if let Some(what) = what {
                self.wrong.entry(path).or_insert(what);
            }
        }
        Ok(any)
    }

    /// Goes through the parent's tree for what is not here and was not deleted.
    fn less(&mut self, parent: &Path, below: &Path) -> Result<(), Fault> {
        if self.emptied.contains(below) {
            return Ok(());
        }
        for (path, there) in children(parent, below)? {
            if self.wrong.len() >= ENOUGH {
                return Ok(());
            }
            if self.hidden.contains(&path) {
                continue;
            }
            match fs::symlink_metadata(self.tree.root.join(&path)) {
                Ok(here) if there.is_dir() && here.is_dir() => self.less(parent, &path)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.wrong.insert(path, "is not there".to_owned());
                }
                Err(error) => return Err(Fault::at(&path, error)),
            }
        }
        Ok(())
    }
}

/// What is in a folder, but for sockets, which are not copied.
fn children(root: &Path, below: &Path) -> Result<Vec<(PathBuf, Metadata)>, Fault> {
    let folder = root.join(below);
    let told = |error: io::Error| Fault::at(&folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(told)? {
        let entry = entry.map_err(told)?;
        let there = entry.metadata().map_err(told)?;
        if !there.file_type().is_socket() {
            found.push((below.join(entry.file_name()), there));
        }
    }
    Ok(found)
}

/// What keeps `copy` from being a copy of `original`, if anything does.
fn not_a_copy(original: &Path, copy: &Path) -> Result<Option<String>, Fault> {
    let told = |error: io::Error| Fault::at(copy, error);
    let here = fs::symlink_metadata(copy).map_err(told)?;
    let there = match fs::symlink_metadata(original) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some("is neither in the layer nor in the parent".to_owned()));
        }
        Err(error) => return Err(Fault::at(original, error)),
    };
    let same = here.mode() == there.mode()
        && (here.uid(), here.gid(), here.rdev()) == (there.uid(), there.gid(), there.rdev())
        // A folder in which the layer has done something has another time.
        && (here.is_dir() || here.mtime() == there.mtime() && here.len() == there.len());
    if !same {
        return Ok(Some("is not as in the parent".to_owned()));
    }
    let is_same = if here.is_symlink() {
        let read = |path: &Path| fs::read_link(path).map_err(|error| Fault::at(path, error));
        read(copy)? == read(original)?
    } else if here.is_file() {
        same_data(original, copy).map_err(told)?
    } else {
        true
    };
    Ok((!is_same).then(|| "has other data than in the parent".to_owned()))
}

fn same_data(left: &Path, right: &Path) -> io::Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let count = left.read(&mut a)?;
        if count == 0 {
            return Ok(right.read(&mut b)? == 0);
        }
        match right.read_exact(&mut b[..count]) {
            Ok(()) if a[..count] == b[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
