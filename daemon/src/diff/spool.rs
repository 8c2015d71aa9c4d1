//! The times of a layer's folders, until nothing comes into the folders any more: in memory as long
//! as they are few, and then in a file without a name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::tar::Moment;

/// Bytes that are kept in memory before they go to a file.
const SPOOL: usize = 256 << 10;

/// The times of a folder, which are set when nothing comes into it any more.
pub(super) struct FolderTimes {
    pub(super) path: PathBuf,
    pub(super) accessed: Moment,
    pub(super) modified: Moment,
}

/// The times of folders until the end: in memory as long as they are few.
#[derive(Default)]
pub(super) struct Spool {
    buffer: Vec<u8>,
    file: Option<File>,
}

impl Spool {
    pub(super) fn push(&mut self, times: &FolderTimes, beside: &Path) -> Result<(), Fault> {
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

    pub(super) fn each(
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

impl FolderTimes {
    /// As it is spooled: the path is the last part.
    fn encode(&self, into: &mut Vec<u8>) {
        let path = self.path.as_os_str().as_bytes();
        for moment in [self.accessed, self.modified] {
            into.extend_from_slice(&moment.seconds.to_le_bytes());
            into.extend_from_slice(&moment.nanoseconds.to_le_bytes());
        }
        // Longer than a header can be no path is.
        let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
        into.extend_from_slice(&length.to_le_bytes());
        into.extend_from_slice(path);
    }

    /// Reads one back; none at the end.
    fn decode(from: &mut impl io::Read) -> io::Result<Option<Self>> {
        let mut seconds = [0; 8];
        match from.read_exact(&mut seconds) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let mut word = [0; 4];
        from.read_exact(&mut word)?;
        let accessed = Moment {
            seconds: i64::from_le_bytes(seconds),
            nanoseconds: u32::from_le_bytes(word),
        };
        from.read_exact(&mut seconds)?;
        from.read_exact(&mut word)?;
        let modified = Moment {
            seconds: i64::from_le_bytes(seconds),
            nanoseconds: u32::from_le_bytes(word),
        };
        from.read_exact(&mut word)?;
        let mut path = vec![0; u32::from_le_bytes(word) as usize];
        from.read_exact(&mut path)?;
        Ok(Some(Self {
            path: PathBuf::from(OsStr::from_bytes(&path)),
            accessed,
            modified,
        }))
    }
}
