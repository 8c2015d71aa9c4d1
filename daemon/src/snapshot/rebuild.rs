//! Makes the folder of a committed snapshot anew from its layer, and puts it in place of the one
//! that is there in one step: whoever is killed at any moment leaves the old one or the new one,
//! and a folder under a temporary name that the next start removes.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use core_api::snapshots::Kind;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tonic::Status;

use super::driver::{Driver, Layout};
use super::probe;
use super::told;
use super::usage::Usage;
use crate::diff::apply::{Place, apply_blob};
use crate::diff::compare::{Tree, compare_blob};
use crate::diff::media::Reading;
use crate::diff::target::Hiding;

impl Driver {
    /// How trees of snapshots on `parents` (nearest first) hide what is below them.
    fn hiding(&self, parents: &[u64]) -> Hiding {
        match self.layout {
            // The lowest layer is unpacked onto a bind mount.
            Layout::Overlay if !parents.is_empty() => {
                Hiding::Overlay(if probe::features().user_xattr {
                    "user."
                } else {
                    "trusted."
                })
            }
            _ => Hiding::Deletion,
        }
    }

    /// Compares the tree of a committed snapshot with its layer, and answers what is different.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn compare(
        &self,
        number: u64,
        parents: &[u64],
        blob: File,
        reading: Reading,
        passed: &dyn Fn(u64),
    ) -> Result<Vec<String>, Status> {
        let copied = match (self.layout, parents) {
            (Layout::Native, [parent, ..]) => Some(self.tree(*parent)),
            _ => None,
        };
        let tree = Tree {
            root: self.tree(number),
            hiding: self.hiding(parents),
            copied,
        };
        Ok(compare_blob(blob, reading, &tree, passed)?)
    }

    /// Makes the folder with this number anew from its layer. At least `reserve` bytes of the disk
    /// stay free. Answers what it takes on disk.
    ///
    /// # Errors
    /// What is wrong with the layer; that there is no room. Then everything is as it was.
    pub fn rebuild(
        &self,
        number: u64,
        parents: &[u64],
        blob: File,
        reading: Reading,
        reserve: u64,
    ) -> Result<Usage, Status> {
        let staged = self.stage(Kind::Active, parents)?;
        let Some(path) = staged.path() else {
            return Err(Status::internal("a snapshot without a folder"));
        };
        let place = Place {
            root: self.tree_in(path),
            lower: match self.layout {
                Layout::Overlay => parents.iter().map(|parent| self.tree(*parent)).collect(),
                Layout::Native => Vec::new(),
            },
            hiding: self.hiding(parents),
        };
        apply_blob(blob, reading, &place, reserve)?;
        let sync = |path: &Path| {
            File::open(path)
                .and_then(|folder| Ok(nix::unistd::syncfs(folder)?))
                .map_err(|error| told(path, &error))
        };
        sync(path)?;
        let to = self.folder(number);
        exchange(path, &to).map_err(|error| told(&to, &error))?;
        // The old one goes with `staged`: only after the new one is there for good.
        sync(&to)?;
        self.usage(number)
    }
}

/// Puts `new` in the place of `old`, and `old`, if it is there, in that of `new`.
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) => fs::rename(new, old),
        // A filesystem that cannot: between the two steps the snapshot is without a folder, which
        // the next run finds.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            let mut aside = new.as_os_str().to_owned();
            aside.push("-old");
            fs::rename(old, &aside)?;
            fs::rename(new, old)?;
            fs::rename(&aside, new)
        }
        Err(errno) => Err(errno.into()),
    }
}
