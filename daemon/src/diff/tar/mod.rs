//! Reading tar archives: entries with everything about them, in any of the dialects that layers
//! come in (v7, ustar, PAX, GNU with its long names and sparse files, star).
//!
//! The field layout of a header comes from the crate `tar`. The rest is ours: that crate's own
//! reader keeps a long name of any length in memory, knows PAX sparse files not at all, and cuts
//! PAX values at a newline, which file capabilities contain.

mod entry;
mod number;
mod pax;
mod sparse;

use std::io::BufRead;

use ::tar::{EntryType, Header};

use super::fault::Fault;
pub use entry::{Data, Entry, Extent, Kind, Moment};
use pax::Records;

const BLOCK: usize = 512;
/// The most bytes that long names, PAX records and sparse maps of one entry may have.
pub const HEADER_LIMIT: usize = 1 << 20;

impl<R: BufRead> Data for Reader<R> {
    fn each(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        loop {
            let chunk = self.data()?;
            if chunk.is_empty() {
                return Ok(());
            }
            take(chunk)?;
            let count = chunk.len();
            self.consume(count);
        }
    }
}

/// Reads the entries of an archive one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes of the current entry's data that were not read yet.
    data: u64,
    /// Bytes that follow its data up to the next block.
    padding: u64,
}

impl<R: BufRead> Reader<R> {
    /// Begins at the first header.
    pub fn new(input: R) -> Self {
        Self {
            input,
            data: 0,
            padding: 0,
        }
    }

    /// The next entry, or none at the end; what is left of the current one's data is passed over.
    ///
    /// # Errors
    /// What is wrong with the archive, or cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut records = Records::default();
        let (mut long_name, mut long_link) = (None, None);
        // Headers that only say more about the one to come; their sizes add up to the limit.
        let mut about = 0;
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number::parse(&header.as_old().size)
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| broken("a size that is no number"))?;
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader
                | EntryType::XGlobalHeader
                | EntryType::GNULongName
                | EntryType::GNULongLink => {
                    self.set_data(size);
                    about += size.max(BLOCK as u64);
                    if about > HEADER_LIMIT as u64 {
                        return Err(broken("names and attributes of more than 1 MiB"));
                    }
                    let bytes = self.read_all(size)?;
                    match kind {
                        EntryType::XHeader => records = Records::parse(&bytes)?,
                        EntryType::GNULongName => long_name = Some(until_nul(&bytes).to_vec()),
                        EntryType::GNULongLink => long_link = Some(until_nul(&bytes).to_vec()),
                        // Those for all that follow are not used by anything that writes layers.
                        _ => {}
                    }
                }
                _ => {
                    let entry = self.entry(&header, size, records, long_name, long_link)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Some of the current entry's data as it is in the archive; empty when there is no more.
    ///
    /// # Errors
    /// Those of the input.
    pub fn data(&mut self) -> Result<&[u8], Fault> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let limit = usize::try_from(self.data).unwrap_or(usize::MAX);
        let chunk = self.input.fill_buf().map_err(unreadable)?;
        if chunk.is_empty() {
            return Err(cut_short());
        }
        Ok(&chunk[..chunk.len().min(limit)])
    }

    /// Passes over `count` bytes of what [`Reader::data`] gave.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.data = self.data.saturating_sub(count as u64);
    }

    fn set_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip_data(&mut self) -> Result<(), Fault> {
        self.data = self.data.saturating_add(std::mem::take(&mut self.padding));
        loop {
            let count = self.data()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }

    /// The next `size` bytes of data, which the caller has found to be few.
    fn read_all(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        while left > 0 {
            let chunk = self.data()?;
            if chunk.is_empty() {
                return Err(cut_short());
            }
            let count = chunk.len().min(left);
            bytes.extend_from_slice(&chunk[..count]);
            self.consume(count);
            left -= count;
        }
        Ok(bytes)
    }

    /// The next block; none at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let chunk = self.input.fill_buf().map_err(unreadable)?;
            if chunk.is_empty() {
                return match filled {
                    0 => Ok(None),
                    _ => Err(cut_short()),
                };
            }
            let count = chunk.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&chunk[..count]);
            self.input.consume(count);
            filled += count;
        }
        Ok(Some(block))
    }

    /// The next header; none at the end of the archive, which is two empty blocks or the end of
    /// the input.
    fn header(&mut self) -> Result<Option<Box<Header>>, Fault> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block == [0; BLOCK] {
            return match self.block()? {
                Some(second) if second != [0; BLOCK] => {
                    Err(broken("an empty block where a header should be"))
                }
                _ => Ok(None),
            };
        }
        let header = Box::new(Header::from_byte_slice(&block).clone());
        let stated = number::parse(&header.as_old().cksum);
        // Old writers added the bytes up as signed numbers.
        let (mut unsigned, mut signed) = (0, 0);
        for (at, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated != Some(unsigned) && stated != Some(signed) {
            return Err(broken("a header with a wrong checksum"));
        }
        Ok(Some(header))
    }

    fn entry(
        &mut self,
        header: &Header,
        stored: u64,
        records: Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Fault> {
        let path = long_name
            .or_else(|| records.sparse.name.clone())
            .or_else(|| records.path.clone())
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = long_link
            .or_else(|| records.link.clone())
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let wrong = |what: &str| Fault::layer(&path, what);
        if path.contains(&0) || link.contains(&0) {
            return Err(wrong("a name with a NUL byte"));
        }
        let byte = header.entry_type().as_byte();
        let kind = match byte {
            // In old archives a folder is a file whose name ends so.
            0 if path.ends_with(b"/") => Kind::Folder,
            0 | b'0' | b'7' | b'S' => Kind::Regular,
            b'1' => Kind::Link,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            other => {
                let what = format!("a type that no layer has ({:?})", char::from(other));
                return Err(wrong(&what));
            }
        };
        // Whatever size the header states, only files have data.
        let stored = match kind {
            Kind::Regular => records.size.unwrap_or(stored),
            _ => 0,
        };
        self.set_data(stored);
        let old = header.as_old();
        let id = |record: Option<u64>, field: &[u8]| {
            let value = match record {
                Some(value) => i64::try_from(value).ok(),
                None => number::parse(field),
            };
            // All ones is how the kernel spells "leave it".
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|id| *id != u32::MAX)
        };
        let mut entry = Entry {
            kind,
            mode: number::parse(&old.mode)
                .and_then(|mode| u32::try_from(mode & 0o7777).ok())
                .ok_or_else(|| wrong("a mode that is no number"))?,
            uid: id(records.uid, &old.uid).ok_or_else(|| wrong("an owner that cannot be"))?,
            gid: id(records.gid, &old.gid).ok_or_else(|| wrong("a group that cannot be"))?,
            modified: match records.modified {
                Some(moment) => moment,
                None => Moment {
                    seconds: number::parse(&old.mtime)
                        .ok_or_else(|| wrong("a time that is no number"))?,
                    nanoseconds: 0,
                },
            },
            accessed: records.accessed,
            device: device(header, kind).ok_or_else(|| wrong("a device that cannot be"))?,
            size: stored,
            attributes: records.attributes,
            extents: None,
            link,
            path,
        };
        if entry.kind == Kind::Regular {
            self.read_sparse_map(header, &records.sparse, &mut entry)?;
        }
        Ok(entry)
    }

    /// Finds out whether the entry is sparse, in which of the five ways, and where its data is.
    fn read_sparse_map(
        &mut self,
        header: &Header,
        records: &pax::Sparse,
        entry: &mut Entry,
    ) -> Result<(), Fault> {
        let stored = self.data;
        let wrong = |what: &str| Fault::layer(&entry.path, what);
        let (extents, size) = if header.entry_type() == EntryType::GNUSparse {
            let gnu = header
                .as_gnu()
                .ok_or_else(|| wrong("a sparse file in a header that is not GNU's"))?;
            let mut map = sparse::Map::default();
            map.add_gnu(&gnu.sparse)?;
            let mut more = gnu.isextended[0] == 1;
            while more {
                let block = self.block()?.ok_or_else(cut_short)?;
                more = map.add_gnu_block(&block)?;
            }
            let size = number::parse(&gnu.realsize).and_then(|size| u64::try_from(size).ok());
            (map.extents, size)
        } else if records.is_in_data() {
            let mut map = sparse::Lines::default();
            // The map takes whole blocks at the beginning of the data.
            while !map.is_complete() {
                if self.data < BLOCK as u64 {
                    return Err(wrong("a sparse map that is cut short"));
                }
                let block = self.read_all(BLOCK as u64)?;
                map.add(&block)?;
            }
            (map.extents()?, records.size)
        } else if !records.numbers.is_empty() || records.size.is_some() && records.has_map {
            (sparse::pairs(&records.numbers)?, records.size)
        } else {
            return Ok(());
        };
        let size = size.ok_or_else(|| wrong("a sparse file without its size"))?;
        let data = if records.is_in_data() {
            self.data
        } else {
            stored
        };
        sparse::check(&extents, size, data).map_err(|what| Fault::layer(&entry.path, what))?;
        entry.size = size;
        entry.extents = Some(extents);
        Ok(())
    }
}

fn device(header: &Header, kind: Kind) -> Option<(u32, u32)> {
    if !matches!(kind, Kind::Char | Kind::Block) {
        return Some((0, 0));
    }
    let (major, minor) = if let Some(ustar) = header.as_ustar() {
        (&ustar.dev_major, &ustar.dev_minor)
    } else {
        let gnu = header.as_gnu()?;
        (&gnu.dev_major, &gnu.dev_minor)
    };
    let number = |field: &[u8]| number::parse(field).and_then(|n| u32::try_from(n).ok());
    Some((number(major)?, number(minor)?))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn broken(what: &str) -> Fault {
    Fault::Layer(format!("the archive has {what}"))
}

fn cut_short() -> Fault {
    Fault::Layer("the archive is cut short".to_owned())
}

/// An input that cannot be read: what decompresses it says that it is broken.
fn unreadable(error: std::io::Error) -> Fault {
    Fault::Layer(format!("the layer cannot be decompressed: {error}"))
}
