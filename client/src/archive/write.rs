//! An archive that is written: the same things in the same order give the same bytes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use tar::{EntryType, Header};

use crate::error::{Context, Error, Result};
use crate::random;

/// Where an archive goes.
enum Place {
    /// Bytes that nobody takes back.
    Stream(Box<dyn Write>),
    /// A file that gets its name when it is whole.
    File {
        file: BufWriter<File>,
        temporary: PathBuf,
        path: PathBuf,
    },
}

/// An archive that is being written. What is dropped before its end leaves no file.
pub(crate) struct Archive {
    name: String,
    place: Place,
    /// What is missing of the current file.
    left: u64,
    padding: usize,
}

impl Archive {
    /// Begins one; `-` is stdout.
    ///
    /// # Errors
    /// It cannot be written there.
    pub(crate) fn create(path: &str) -> Result<Self> {
        let (name, place) = if path == "-" {
            if io::stdout().is_terminal() {
                return Err(Error::said(
                    "an archive is nothing for a terminal: name a file with -o FILE",
                ));
            }
            ("stdout".to_owned(), Place::Stream(Box::new(io::stdout())))
        } else {
            (path.to_owned(), place(path)?)
        };
        Ok(Self {
            name,
            place,
            left: 0,
            padding: 0,
        })
    }

    /// Whether what is written cannot be taken back, and its reader may let us wait.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.place, Place::Stream(_))
    }

    /// A folder.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn folder(&mut self, name: &str) -> Result<()> {
        self.header(name, 0, EntryType::Directory, 0o755)
    }

    /// A file, whose bytes are to follow.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn file(&mut self, name: &str, size: u64) -> Result<()> {
        self.header(name, size, EntryType::Regular, 0o444)?;
        self.left = size;
        self.padding = usize::try_from((512 - size % 512) % 512).unwrap_or_default();
        self.pad_at_end()
    }

    /// Bytes of the file.
    ///
    /// # Errors
    /// The system's, or there are more than was said.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| Error::said("a blob is longer than its descriptor says"))?;
        self.put(bytes)?;
        self.pad_at_end()
    }

    /// A file whose bytes are here.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn whole(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name, bytes.len() as u64)?;
        match bytes {
            [] => Ok(()),
            bytes => self.data(bytes),
        }
    }

    /// Ends the archive and gives it its name.
    ///
    /// # Errors
    /// The system's, or a file is too short.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::said("a blob is shorter than its descriptor says"));
        }
        self.put(&[0; 1024])?;
        match &mut self.place {
            Place::Stream(stream) => stream.flush().about(&self.name),
            Place::File {
                file,
                temporary,
                path,
            } => {
                file.flush().about(&self.name)?;
                file.get_ref().sync_all().about(&self.name)?;
                std::fs::rename(&*temporary, &*path).about(&self.name)
            }
        }
    }

    fn header(&mut self, name: &str, size: u64, kind: EntryType, mode: u32) -> Result<()> {
        if self.left > 0 {
            return Err(Error::said("a blob is shorter than its descriptor says"));
        }
        let mut header = Header::new_gnu();
        header.set_path(name).about(name)?;
        header.set_size(size);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn pad_at_end(&mut self) -> Result<()> {
        if self.left > 0 || self.padding == 0 {
            return Ok(());
        }
        let zeros = vec![0; std::mem::take(&mut self.padding)];
        self.put(&zeros)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.place {
            Place::Stream(stream) => stream.write_all(bytes),
            Place::File { file, .. } => file.write_all(bytes),
        };
        written.about(&self.name)
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if let Place::File { temporary, .. } = &self.place {
            // After the end it is not there under this name any more.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// What is no plain file, such as a FIFO, is written as it is.
fn place(path: &str) -> Result<Place> {
    let whole = PathBuf::from(path);
    if whole.is_dir() {
        return Err(Error::said(format!(
            "{path} is a folder; name a file in it"
        )));
    }
    if whole.exists() && !whole.is_file() {
        let file = OpenOptions::new().write(true).open(&whole).about(path)?;
        return Ok(Place::Stream(Box::new(file)));
    }
    let mut temporary = whole.clone().into_os_string();
    temporary.push(format!(".{}", random::id()?));
    let temporary = PathBuf::from(temporary);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .about(path)?;
    Ok(Place::File {
        file: BufWriter::new(file),
        temporary,
        path: whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let name = path.to_str().unwrap();
        let mut archive = Archive::create(name).unwrap();
        archive.file("x", 5).unwrap();
        archive.data(b"123").unwrap();
        archive.data(b"456").unwrap_err();
        drop(archive);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

        let mut archive = Archive::create(name).unwrap();
        archive.folder("blobs/").unwrap();
        archive.whole("blobs/x", &[1; 513]).unwrap();
        archive.whole("empty", b"").unwrap();
        archive.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut read = tar::Archive::new(File::open(&path).unwrap());
        let sizes: Vec<u64> = read
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().size())
            .collect();
        assert_eq!(sizes, [0, 513, 0]);
        assert_eq!(std::fs::metadata(&path).unwrap().len() % 512, 0);
    }
}
