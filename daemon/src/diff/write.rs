//! Makes a layer: the archive of what is different in one tree from another.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ::tar::{EntryType, Header};
use flate2::write::GzEncoder;
use nix::sys::stat::{major, minor};
use sha2::{Digest, Sha256};

use super::changes::{self, Change};
use super::fault::Fault;
use super::media::Compression;
use super::names::WHITEOUT;
use super::stream::digest_text;

const BLOCK: usize = 512;
/// The largest numbers that the octal fields of a header hold.
const ID_LIMIT: u32 = 0o777_7777;
const SIZE_LIMIT: u64 = 0o777_7777_7777;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Digest of the blob.
    pub digest: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Digest of the archive before compression.
    pub uncompressed: String,
}

/// Writes the layer that makes `right` out of `left` to `to`. No time in it is later than
/// `latest`, in seconds since 1970.
///
/// # Errors
/// `Layer` for a name that no layer can have; what cannot be read or written.
pub fn write_layer(
    left: &Path,
    right: &Path,
    to: File,
    compression: Compression,
    latest: Option<i64>,
) -> Result<Written, Fault> {
    let blob = Hashing::new(BufWriter::with_capacity(256 << 10, to));
    let encoder = Encoder::new(blob, compression)?;
    let mut archive = Archive {
        out: Hashing::new(encoder),
        root: right,
        links: HashMap::new(),
        latest,
    };
    changes::changes(left, right, &mut |path, change| match change {
        Change::Gone => archive.whiteout(path),
        Change::Present(metadata) => archive.entry(path, metadata),
    })?;
    // Two empty blocks are the end.
    let Archive { mut out, .. } = archive;
    out.write_all(&[0; 1024]).map_err(unwritable)?;
    let uncompressed = digest_text(out.hash);
    let mut blob = out.inner.finish().map_err(unwritable)?;
    blob.flush().map_err(unwritable)?;
    Ok(Written {
        size: blob.total,
        digest: digest_text(blob.hash),
        uncompressed,
    })
}

fn unwritable(error: io::Error) -> Fault {
    Fault::io("the new layer", error)
}

/// Counts and hashes what passes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    total: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            total: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.total += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

type Blob = Hashing<BufWriter<File>>;

enum Encoder {
    Plain(Blob),
    Gzip(GzEncoder<Blob>),
    Zstd(zstd::stream::write::Encoder<'static, Blob>),
}

impl Encoder {
    fn new(blob: Blob, compression: Compression) -> Result<Self, Fault> {
        Ok(match compression {
            Compression::None => Self::Plain(blob),
            Compression::Gzip => Self::Gzip(GzEncoder::new(blob, flate2::Compression::default())),
            Compression::Zstd => {
                Self::Zstd(zstd::stream::write::Encoder::new(blob, 0).map_err(unwritable)?)
            }
        })
    }

    fn finish(self) -> io::Result<Blob> {
        match self {
            Self::Plain(blob) => Ok(blob),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.write(bytes),
            Self::Gzip(inner) => inner.write(bytes),
            Self::Zstd(inner) => inner.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(inner) => inner.flush(),
            Self::Gzip(inner) => inner.flush(),
            Self::Zstd(inner) => inner.flush(),
        }
    }
}

struct Archive<'a> {
    out: Hashing<Encoder>,
    root: &'a Path,
    /// The first name of each file with several.
    links: HashMap<(u64, u64), PathBuf>,
    latest: Option<i64>,
}

impl Archive<'_> {
    fn whiteout(&mut self, path: &Path) -> Result<(), Fault> {
        let mut name = OsString::from(".wh.");
        name.push(path.file_name().unwrap_or_default());
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        self.header(
            header,
            path.with_file_name(name).as_os_str().as_bytes(),
            b"",
            Vec::new(),
        )
    }

    fn entry(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Fault> {
        let bytes = path.as_os_str().as_bytes();
        let name = path.file_name().unwrap_or_default();
        if name.as_bytes().starts_with(WHITEOUT) {
            let what = "this name means a deletion in layers, no layer can have it";
            return Err(Fault::layer(bytes, what));
        }
        let full = self.root.join(path);
        let mut header = Header::new_ustar();
        header.set_mode(metadata.mode() & 0o7777);
        let mut records = self.owner_and_time(&mut header, metadata);
        for (name, value) in changes::attributes(&full)? {
            let key = [b"SCHILY.xattr.", name.as_bytes()].concat();
            records.push((key, value));
        }
        let mut name = bytes.to_vec();
        let mut target = Vec::new();
        let mut data = None;
        let kind = metadata.file_type();
        let inode = (metadata.dev(), metadata.ino());
        let first = self
            .links
            .get(&inode)
            .filter(|_| metadata.nlink() > 1 && !kind.is_dir());
        if let Some(first) = first {
            header.set_entry_type(EntryType::Link);
            target = first.as_os_str().as_bytes().to_vec();
        } else {
            if metadata.nlink() > 1 && !kind.is_dir() {
                self.links.insert(inode, path.to_owned());
            }
            if kind.is_dir() {
                header.set_entry_type(EntryType::Directory);
                name.push(b'/');
            } else if kind.is_symlink() {
                header.set_entry_type(EntryType::Symlink);
                let link = fs::read_link(&full).map_err(|error| Fault::at(&full, error))?;
                target = link.as_os_str().as_bytes().to_vec();
            } else if kind.is_file() {
                header.set_entry_type(EntryType::Regular);
                if metadata.len() > SIZE_LIMIT {
                    records.push((b"size".to_vec(), metadata.len().to_string().into_bytes()));
                } else {
                    header.set_size(metadata.len());
                }
                data = Some(metadata.len());
            } else if kind.is_fifo() {
                header.set_entry_type(EntryType::Fifo);
            } else {
                header.set_entry_type(if kind.is_char_device() {
                    EntryType::Char
                } else {
                    EntryType::Block
                });
                let device = metadata.rdev();
                let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                header
                    .set_device_major(number(major(device)))
                    .and_then(|()| header.set_device_minor(number(minor(device))))
                    .map_err(|error| Fault::at(&full, error))?;
            }
        }
        self.header(header, &name, &target, records)?;
        match data {
            Some(size) => self.data(&full, size),
            None => Ok(()),
        }
    }

    /// Fills in what fits the header, and answers records for what does not.
    fn owner_and_time(&self, header: &mut Header, metadata: &Metadata) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        let mut record = |key: &str, value: String| {
            records.push((key.as_bytes().to_vec(), value.into_bytes()));
        };
        if metadata.uid() > ID_LIMIT {
            record("uid", metadata.uid().to_string());
        } else {
            header.set_uid(metadata.uid().into());
        }
        if metadata.gid() > ID_LIMIT {
            record("gid", metadata.gid().to_string());
        } else {
            header.set_gid(metadata.gid().into());
        }
        let (mut seconds, mut nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        if let Some(latest) = self.latest
            && seconds >= latest
        {
            (seconds, nanoseconds) = (latest, 0);
        }
        match u64::try_from(seconds) {
            Ok(whole) => {
                header.set_mtime(whole);
                if nanoseconds != 0 || whole > SIZE_LIMIT {
                    record("mtime", format!("{whole}.{nanoseconds:09}"));
                }
            }
            // Before 1970, which unpacking makes 1970 of.
            Err(_) => header.set_mtime(0),
        }
        records
    }

    /// Writes a header, with one of PAX before it for what does not fit.
    fn header(
        &mut self,
        mut header: Header,
        name: &[u8],
        target: &[u8],
        mut records: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), Fault> {
        let old = header.as_old_mut();
        if !fill(&mut old.name, name) {
            records.push((b"path".to_vec(), name.to_vec()));
        }
        if !fill(&mut old.linkname, target) {
            records.push((b"linkpath".to_vec(), target.to_vec()));
        }
        if !records.is_empty() {
            let sorted: BTreeMap<_, _> = records.into_iter().collect();
            let mut text = Vec::new();
            for (key, value) in sorted {
                push_record(&mut text, &key, &value);
            }
            let mut pax = Header::new_ustar();
            pax.set_entry_type(EntryType::XHeader);
            pax.set_mode(0o644);
            pax.set_size(text.len() as u64);
            fill(&mut pax.as_old_mut().name, b"PaxHeaders.0/entry");
            pax.set_cksum();
            self.out.write_all(pax.as_bytes()).map_err(unwritable)?;
            self.out.write_all(&text).map_err(unwritable)?;
            self.pad(text.len() as u64)?;
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(unwritable)
    }

    fn data(&mut self, path: &Path, size: u64) -> Result<(), Fault> {
        let told = |error: io::Error| Fault::at(path, error);
        let mut file = File::open(path).map_err(told)?.take(size);
        let mut buffer = vec![0; 128 << 10];
        let mut left = size;
        while left > 0 {
            let count = file.read(&mut buffer).map_err(told)?;
            if count == 0 {
                let error = io::Error::other("became shorter while it was read");
                return Err(told(error));
            }
            self.out.write_all(&buffer[..count]).map_err(unwritable)?;
            left -= count as u64;
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), Fault> {
        let missing = size.next_multiple_of(BLOCK as u64) - size;
        let missing = usize::try_from(missing).unwrap_or(0);
        self.out
            .write_all(&[0; BLOCK][..missing])
            .map_err(unwritable)
    }
}

/// Puts `text` into a field of a header, or as much as fits; answers whether all did.
fn fill(field: &mut [u8], text: &[u8]) -> bool {
    let count = text.len().min(field.len());
    field[..count].copy_from_slice(&text[..count]);
    count == text.len()
}

/// Adds a record, whose length counts its own digits.
fn push_record(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    text.extend_from_slice(format!("{length} ").as_bytes());
    text.extend_from_slice(key);
    text.push(b'=');
    text.extend_from_slice(value);
    text.push(b'\n');
}
