//! Unpacks a layer: entries from the archive into the tree.

use std::fs::File;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::media::Reading;
use super::spool::Spool;
use super::stream::{self, Passed};
use super::tar::Reader;
use super::target::{Hiding, Target};

/// Where a layer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The tree.
    pub root: PathBuf,
    /// The trees below it in an overlay, nearest first.
    pub lower: Vec<PathBuf>,
    /// How whiteouts are carried out.
    pub hiding: Hiding,
}

/// Unpacks `blob` into `place`, and answers what the uncompressed archive is. At least `reserve`
/// bytes stay free. When it fails, a tree that was empty before is empty again.
///
/// # Errors
/// What is wrong with the layer; that there is no room; what the kernel refuses.
pub fn apply_blob(
    blob: File,
    reading: Reading,
    place: &Place,
    reserve: u64,
) -> Result<Passed, Fault> {
    apply_checked(blob, reading, place, reserve, |_| Ok(()))
}

/// As [`apply_blob`], and fails where `check` refuses what the archive is.
///
/// # Errors
/// As [`apply_blob`].
pub fn apply_checked(
    blob: File,
    reading: Reading,
    place: &Place,
    reserve: u64,
    check: impl FnOnce(&Passed) -> Result<(), Fault>,
) -> Result<Passed, Fault> {
    std::thread::scope(|scope| {
        let (mut stream, _) =
            stream::start(scope, blob, reading).map_err(|error| Fault::io("the layer", error))?;
        undone(place, reserve, |target| {
            unpack(&mut stream, target, &place.root)?;
            // The scope waits for the other thread, which ends when the stream is gone.
            let passed = stream.finish().map_err(|error| {
                Fault::Layer(format!("the layer cannot be decompressed: {error}"))
            })?;
            check(&passed)?;
            Ok(passed)
        })
    })
}

/// Unpacks an archive that is not compressed.
///
/// # Errors
/// As [`apply_blob`].
pub fn apply(archive: impl BufRead, place: &Place, reserve: u64) -> Result<(), Fault> {
    undone(place, reserve, |target| {
        unpack(archive, target, &place.root)
    })
}

/// Does `work` on the tree, and undoes it where it fails.
fn undone<T>(
    place: &Place,
    reserve: u64,
    work: impl FnOnce(&mut Target) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut target = Target::open(&place.root, &place.lower, place.hiding, reserve)?;
    let done = work(&mut target);
    if done.is_err() {
        target.undo();
    }
    done
}

fn unpack(archive: impl BufRead, target: &mut Target, root: &Path) -> Result<(), Fault> {
    let mut reader = Reader::new(archive);
    let mut folders = Spool::default();
    while let Some(entry) = reader.next_entry()? {
        let placed = target.place(&entry, &mut reader)?;
        if let Some(times) = placed {
            folders.push(&times, root)?;
        }
    }
    folders.each(|times| target.set_folder_times(times))
}
