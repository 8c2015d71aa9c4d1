//! An archive that is read: a file or stdin, compressed or not, in a thread of its own, since both
//! may block, and what it holds in pieces.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::thread;

use oci_spec::image::Digest;
use tokio::sync::mpsc;

use super::BLOBS;
use super::entries::{Entries, Entry};
use crate::error::{Context, Error, Result};
use crate::image::digest::Sum;
use crate::image::upload::CHUNK;

/// How many pieces may wait to be taken.
const AHEAD: usize = 3;

/// How bytes are compressed, by their first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Of bytes, of which four suffice.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// A piece of an archive.
#[derive(Debug)]
pub(crate) enum Piece {
    /// An entry begins; if it is a file, its bytes follow.
    Entry(Entry),
    /// Bytes of the file.
    Data(Vec<u8>),
    /// The file is over. Its SHA-256, where its name does not tell it.
    End(Option<Digest>),
}

/// The pieces; an error is the last one.
pub(crate) type Pieces = mpsc::Receiver<Result<Piece>>;

/// Begins to read an archive; `-` is stdin.
///
/// # Errors
/// There is no such file.
pub(crate) fn open(path: &str) -> Result<Pieces> {
    let (name, raw): (String, Box<dyn Read + Send>) = if path == "-" {
        ("stdin".to_owned(), Box::new(io::stdin()))
    } else {
        let file = File::open(path).about(path)?;
        if file.metadata().about(path)?.is_dir() {
            return Err(Error::said(format!(
                "{path} is a folder; an archive is a tar file"
            )));
        }
        (path.to_owned(), Box::new(file))
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let thread = thread::Builder::new()
        .name("archive".to_owned())
        .spawn(move || {
            if let Err(error) = pass_on(raw, &sender) {
                // Without a receiver nobody wants to know.
                let _ = sender.blocking_send(Err(Error::io(name, error)));
            }
        });
    thread.map(|_| receiver).about("a thread")
}

fn pass_on(mut raw: Box<dyn Read + Send>, sender: &mpsc::Sender<Result<Piece>>) -> io::Result<()> {
    let mut start = Vec::new();
    raw.by_ref().take(4).read_to_end(&mut start)?;
    let compression = Compression::of(&start);
    let whole = Cursor::new(start).chain(raw);
    let plain: Box<dyn Read> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => {
            let buffered = io::BufReader::with_capacity(1 << 17, whole);
            Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
        }
        Compression::Zstd => Box::new(zstd::Decoder::new(whole)?),
    };
    let mut entries = Entries::new(io::BufReader::with_capacity(1 << 17, plain));
    while let Some(entry) = entries.next()? {
        let file = match &entry {
            Entry::File { name, .. } => Some(!name.starts_with(BLOBS)),
            Entry::Link { .. } => None,
        };
        if sender.blocking_send(Ok(Piece::Entry(entry))).is_err() {
            return Ok(());
        }
        let Some(unnamed) = file else { continue };
        let mut sum = unnamed.then(Sum::default);
        loop {
            let data = fill(&mut entries)?;
            let piece = if data.is_empty() {
                Piece::End(sum.take().map(Sum::digest))
            } else {
                if let Some(sum) = &mut sum {
                    sum.add(&data);
                }
                Piece::Data(data)
            };
            let is_end = matches!(piece, Piece::End(_));
            if sender.blocking_send(Ok(piece)).is_err() {
                return Ok(());
            }
            if is_end {
                break;
            }
        }
    }
    entries.finish()
}

/// The next bytes of a file, as many as are sent at once.
fn fill<R: Read>(entries: &mut Entries<R>) -> io::Result<Vec<u8>> {
    let mut data = vec![0; CHUNK];
    let mut length = 0;
    while length < CHUNK {
        match entries.read(&mut data[length..])? {
            0 => break,
            more => length += more,
        }
    }
    data.truncate(length);
    Ok(data)
}
