//! A layer's bytes on their way from the blob to whoever unpacks them: one thread decompresses
//! into a few large buffers, the other takes them, and counts and hashes what it takes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::media::{Compression, Reading, sniff};

/// Bytes of one buffer.
const BUFFER: usize = 1 << 20;
/// How many full buffers may wait. With the one being filled and the one being read this is all
/// the memory that a layer of any size takes, beside what its compression needs.
const WAITING: usize = 2;
/// The largest window of Zstandard, as a power of two: 16 MiB. The format allows gigabytes, and
/// the decoder has to keep that much.
const WINDOW_LOG: u32 = 24;
/// Bytes that are read of a blob at once.
const READ: usize = 256 << 10;

/// The uncompressed bytes.
#[derive(Debug)]
pub struct Stream {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hash: Sha256,
    total: u64,
    ended: bool,
}

/// What has passed through a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// `sha256:` and the digest in hexadecimal.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// The digest as it is written everywhere.
pub fn digest_text(hash: Sha256) -> String {
    use std::fmt::Write;
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Begins to decompress `blob` in a thread of `scope`, which ends when the blob or the stream
/// does.
///
/// # Errors
/// Those of reading, and of starting a thread.
pub fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    blob: File,
    reading: Reading,
) -> io::Result<(Stream, ScopedJoinHandle<'scope, ()>)> {
    let (full_in, full) = sync_channel(WAITING);
    let (empty, empty_out) = channel();
    let decoder = decoder(blob, reading)?;
    let thread = std::thread::Builder::new()
        .name("unpack".to_owned())
        .stack_size(256 << 10)
        .spawn_scoped(scope, move || fill(decoder, &full_in, &empty_out))?;
    let stream = Stream {
        full,
        empty,
        current: Vec::new(),
        at: 0,
        hash: Sha256::new(),
        total: 0,
        ended: false,
    };
    Ok((stream, thread))
}

fn decoder(blob: File, reading: Reading) -> io::Result<Box<dyn Read + Send>> {
    let mut blob = BufReader::with_capacity(READ, blob);
    let compression = match reading {
        Reading::Plain => Compression::None,
        Reading::Sniff => sniff(blob.fill_buf()?),
    };
    Ok(match compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(MultiGzDecoder::new(blob)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

/// Reads until the end, an error, or nobody wants more.
fn fill(
    mut decoder: Box<dyn Read + Send>,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) {
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let mut filled = 0;
        let mut failed = None;
        while filled < BUFFER {
            match decoder.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        buffer.truncate(filled);
        if filled > 0 && full.send(Ok(buffer)).is_err() {
            return;
        }
        if let Some(error) = failed {
            let _ = full.send(Err(error));
            return;
        }
        if filled < BUFFER {
            return;
        }
    }
}

impl Stream {
    /// Takes what is left, so that the digest is that of the whole.
    ///
    /// # Errors
    /// Those of the blob: it is cut short or broken.
    pub fn finish(mut self) -> io::Result<Passed> {
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        Ok(Passed {
            digest: digest_text(self.hash),
            size: self.total,
        })
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() && !self.ended {
            let used = std::mem::take(&mut self.current);
            // The other side may be gone already; then nobody needs the buffer.
            let _ = self.empty.send(used);
            self.at = 0;
            match self.full.recv() {
                Ok(Ok(buffer)) => {
                    self.hash.update(&buffer);
                    self.total += buffer.len() as u64;
                    self.current = buffer;
                }
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.current.len());
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
