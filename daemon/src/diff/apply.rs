//! Unpacks a layer: entries from the archive into the tree.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::media::Reading;
use super::stream::{self, Passed};
use super::tar::Reader;
use super::target::{FolderTimes, Hiding, Target};

/// Bytes of folder times that are kept in memory before they go to a file.
const SPOOL: usize = 256 << 10;

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
    std::thread::scope(|scope| {
        let (mut stream, _) =
            stream::start(scope, blob, reading).map_err(|error| Fault::io("the layer", error))?;
        apply(&mut stream, place, reserve)?;
        // The scope waits for the other thread, which ends when the stream is gone.
        stream
            .finish()
            .map_err(|error| Fault::Layer(format!("the layer cannot be decompressed: {error}")))
    })
}

/// Unpacks an archive that is not compressed.
///
/// # Errors
/// As [`apply_blob`].
pub fn apply(archive: impl BufRead, place: &Place, reserve: u64) -> Result<(), Fault> {
    let mut target = Target::open(&place.root, &place.lower, place.hiding, reserve)?;
    let applied = unpack(archive, &mut target, &place.root);
    if applied.is_err() {
        target.undo();
    }
    applied
}

fn unpack(archive: impl BufRead, target: &mut Target, root: &Path) -> Result<(), Fault> {
    let mut reader = Reader::new(archive);
    let mut folders = Spool::default();
    while let Some(entry) = reader.next_entry()? {
        let placed = target.place(&entry, &mut |write| {
            loop {
                let chunk = reader.data()?;
                if chunk.is_empty() {
                    return Ok(());
                }
                write(chunk)?;
                let count = chunk.len();
                reader.consume(count);
            }
        })?;
        if let Some(times) = placed {
            folders.push(&times, root)?;
        }
    }
    folders.each(|times| target.set_folder_times(times))
}

/// The times of folders until the end: in memory as long as they are few.
#[derive(Default)]
struct Spool {
    buffer: Vec<u8>,
    file: Option<File>,
}

impl Spool {
    fn push(&mut self, times: &FolderTimes, beside: &Path) -> Result<(), Fault> {
        times.encode(&mut self.buffer);
        if self.buffer.len() < SPOOL {
            return Ok(());
        }
        let told = |error: io::Error| Fault::io("a temporary file", error);
        if self.file.is_none() {
            self.file = Some(nameless(beside).map_err(told)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer).map_err(told)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn each(
        mut self,
        mut work: impl FnMut(&FolderTimes) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let told = |error: io::Error| Fault::io("a temporary file", error);
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0)).map_err(told)?;
            let mut spooled = BufReader::new(file);
            while let Some(times) = FolderTimes::decode(&mut spooled).map_err(told)? {
                work(&times)?;
            }
        }
        let mut rest = self.buffer.as_slice();
        while let Some(times) = FolderTimes::decode(&mut rest).map_err(told)? {
            work(&times)?;
        }
        Ok(())
    }
}

/// A file without a name on the filesystem of a folder; it goes when it is closed.
fn nameless(folder: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder)
}
