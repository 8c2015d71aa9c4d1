//! The entries of a tar file, read once from front to back with bounded memory. Only files and
//! links count; names are text.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

/// Size of a block.
const BLOCK: usize = 512;
/// The longest name or list of attributes that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// What the archive holds next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A file, whose bytes follow.
    File {
        /// Its name, without `./` in front.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A name for another file.
    Link {
        /// Its name, without `./` in front.
        name: String,
        /// The name it stands for, seen from the top of the archive.
        target: String,
    },
}

/// A tar file that is being read.
pub(crate) struct Entries<R> {
    source: R,
    /// How many bytes of the current file have not been read.
    left: u64,
    /// How many bytes follow them up to the next header.
    padding: u64,
}

/// What long names and attributes said of the entry that follows them.
#[derive(Default)]
struct Said {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            left: 0,
            padding: 0,
        }
    }

    /// The next file or link; none at the end.
    ///
    /// # Errors
    /// The source's, or it is no tar file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        self.skip()?;
        let mut said = Said::default();
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let own_size = header
                .entry_size()
                .map_err(|_| broken("a header holds no size"))?;
            let entry_type = header.entry_type();
            match entry_type {
                EntryType::GNULongName => said.name = Some(self.text(own_size)?),
                EntryType::GNULongLink => said.link = Some(self.text(own_size)?),
                EntryType::XHeader => self.attributes(own_size, &mut said)?,
                EntryType::XGlobalHeader => {
                    self.expect(own_size);
                    self.skip()?;
                }
                _ => {
                    let said = std::mem::take(&mut said);
                    self.expect(said.size.unwrap_or(own_size));
                    if let Some(entry) = self.entry(&header, said) {
                        return Ok(Some(entry));
                    }
                    self.skip()?;
                }
            }
        }
    }

    /// The file or link of a header; none for folders and devices.
    fn entry(&mut self, header: &Header, said: Said) -> Option<Entry> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = plain(&said.name.unwrap_or_else(|| text(&header.path_bytes())));
        let link = said
            .link
            .or_else(|| header.link_name_bytes().map(|bytes| text(&bytes)));
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let size = self.left;
                Some(Entry::File { name, size })
            }
            EntryType::Link => Some(Entry::Link {
                target: plain(&link?),
                name,
            }),
            EntryType::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = plain(&format!("{folder}/{}", link?));
                Some(Entry::Link { name, target })
            }
            _ => None,
        }
    }

    /// The next header; none at the end.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0; BLOCK];
        let mut length = 0;
        while length < BLOCK {
            match self.source.read(&mut block[length..]) {
                Ok(0) if length == 0 => return Ok(None),
                Ok(0) => return Err(broken("it is cut off, or no tar file")),
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // The sum counts its own field as blanks.
        let blank = |(at, byte): (usize, &u8)| {
            u32::from(if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            })
        };
        let sum: u32 = block.iter().enumerate().map(blank).sum();
        if header.cksum().ok() != Some(sum) {
            return Err(broken("it is damaged, or no tar file"));
        }
        Ok(Some(header))
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// Bytes of the current file; none at its end.
    ///
    /// # Errors
    /// The source's, or it ends too early.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        loop {
            match self.source.read(&mut buffer[..room]) {
                Ok(0) => return Err(broken("it is cut off")),
                Ok(length) => {
                    self.left -= length as u64;
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes to the next header.
    fn skip(&mut self) -> io::Result<()> {
        self.left = self.left.saturating_add(self.padding);
        self.padding = 0;
        let mut buffer = vec![
            0;
            usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(1 << 16)
        ];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn small(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > LONGEST {
            return Err(broken("a name or an attribute in it is longer than 1 MiB"));
        }
        self.expect(size);
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.read(&mut buffer)? {
                0 => break,
                length => bytes.extend_from_slice(&buffer[..length]),
            }
        }
        self.skip()?;
        Ok(bytes)
    }

    fn text(&mut self, size: u64) -> io::Result<String> {
        let bytes = self.small(size)?;
        let end = bytes
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn attributes(&mut self, size: u64, said: &mut Said) -> io::Result<()> {
        let bytes = self.small(size)?;
        for attribute in PaxExtensions::new(&bytes) {
            let attribute = attribute.map_err(|_| broken("an attribute in it cannot be read"))?;
            let value = String::from_utf8_lossy(attribute.value_bytes()).into_owned();
            match attribute.key_bytes() {
                b"path" => said.name = Some(value),
                b"linkpath" => said.link = Some(value),
                b"size" => {
                    let size = value
                        .parse()
                        .map_err(|_| broken("a size in it is no number"))?;
                    said.size = Some(size);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads what follows the end, so that who writes it into a pipe gets rid of it, and a
    /// compressed file is checked to its end; up to a limit.
    ///
    /// # Errors
    /// The source's.
    pub(crate) fn finish(self) -> io::Result<()> {
        io::copy(&mut self.source.take(16 << 20), &mut io::sink()).map(drop)
    }
}

/// A name without `.`, `..` and doubled slashes, seen from the top of the archive.
fn plain(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, bytes).unwrap();
        };
        add("./a", b"first");
        add(&"long/".repeat(60), &[7; 1025]);
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder
            .append_link(&mut header, "x/y/layer.tar", "../../a")
            .unwrap();
        builder
            .append_pax_extensions([("path", b"by-pax".as_slice())])
            .unwrap();
        let mut header = Header::new_gnu();
        header.set_size(3);
        builder
            .append_data(&mut header, "other", b"end".as_slice())
            .unwrap();
        builder.into_inner().unwrap()
    }

    fn read_all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut entries = Entries::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = entries.next()? {
            let mut data = Vec::new();
            let mut buffer = [0; 700];
            loop {
                match entries.read(&mut buffer)? {
                    0 => break,
                    length => data.extend_from_slice(&buffer[..length]),
                }
            }
            all.push((entry, data));
        }
        entries.finish().map(|()| all)
    }

    #[test]
    fn files_and_links_are_read() {
        let all = read_all(&archive()).unwrap();
        let file = |name: &str, size| Entry::File {
            name: name.to_owned(),
            size,
        };
        assert_eq!(all[0], (file("a", 5), b"first".to_vec()));
        assert_eq!(all[1].0, file(&plain(&"long/".repeat(60)), 1025));
        let link = Entry::Link {
            name: "x/y/layer.tar".to_owned(),
            target: "a".to_owned(),
        };
        assert_eq!(all[2], (link, Vec::new()));
        assert_eq!(all[3], (file("by-pax", 3), b"end".to_vec()));
        assert_eq!(all.len(), 4);
        assert_eq!(plain("../../etc//./passwd"), "etc/passwd");
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let said = |bytes: &[u8]| read_all(bytes).unwrap_err().to_string();
        assert!(said(b"hello").contains("no tar file"));
        assert!(said(&[b'x'; 1024]).contains("no tar file"));
        assert!(said(&archive()[..900]).contains("cut off"));
        assert!(read_all(&[]).unwrap().is_empty());
        // A name that would take the memory of the machine.
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        assert!(said(header.as_bytes()).contains("longer than 1 MiB"));
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..6000, byte: u8, cut in 0usize..9000) {
            let mut bytes = archive();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            let _ = read_all(&bytes);
        }
    }
}
