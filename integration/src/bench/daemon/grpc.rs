//! A gRPC client as small as what is timed with it: one call at a time on one connection, written by
//! hand, since this crate knows the daemons as programs only, and a client program takes longer to
//! start than most calls do.
//!
//! HTTP/2 frames are those of RFC 9113, the header block is that of RFC 7541 without indexing, and
//! messages are framed as gRPC's "over HTTP2" has it. Headers of answers are passed over: a call
//! went well if a message came back, and the log of the daemon tells why if none did.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long the daemon may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much may be sent to us before we say more; the largest number there is. No connection here
/// comes near it.
const WINDOW: u32 = (1 << 31) - 1;
/// What the connection begins with.
const FIRST_WINDOW: u32 = (1 << 16) - 1;

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// Flags of frames.
const ACKNOWLEDGED: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The setting of how much one stream may send.
const STREAM_WINDOW: u16 = 4;

/// A connection to a daemon.
pub(super) struct Connection {
    stream: UnixStream,
    namespace: String,
    /// The number of the last stream; ours are odd.
    last: u32,
}

impl Connection {
    /// Connects to `socket`; calls are about `namespace`, or about none when it is empty.
    pub(super) fn open(socket: &Path, namespace: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut hello = PREFACE.to_vec();
        let window = [&STREAM_WINDOW.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
        hello.extend(frame(SETTINGS, 0, 0, &window));
        let more = (WINDOW - FIRST_WINDOW).to_be_bytes();
        hello.extend(frame(WINDOW_UPDATE, 0, 0, &more));
        stream.write_all(&hello)?;
        Ok(Self {
            stream,
            namespace: namespace.to_owned(),
            // The first stream that clients use is 1.
            last: u32::MAX,
        })
    }

    /// Calls `method`, `PACKAGE.SERVICE/NAME`, with an encoded message, and answers how many bytes of
    /// messages came back, with what frames them: 0 for a refusal.
    pub(super) fn call(&mut self, method: &str, message: &[u8]) -> io::Result<usize> {
        self.last = self.last.wrapping_add(2);
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
        framed.extend(message);
        let headers = header_block(method, &self.namespace);
        let mut request = frame(HEADERS, END_HEADERS, self.last, &headers);
        request.extend(frame(DATA, END_STREAM, self.last, &framed));
        self.stream.write_all(&request)?;
        let mut received = 0;
        loop {
            let (kind, flags, stream, payload) = self.frame()?;
            match kind {
                PING | SETTINGS if flags & ACKNOWLEDGED == 0 => {
                    let echo = if kind == PING { &payload[..] } else { &[] };
                    self.stream.write_all(&frame(kind, ACKNOWLEDGED, 0, echo))?;
                }
                DATA if stream == self.last => received += payload.len(),
                RESET if stream == self.last => return Ok(received),
                _ => {}
            }
            let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
            if ends && stream == self.last {
                return Ok(received);
            }
        }
    }

    fn frame(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok((kind, flags, u32::from_be_bytes(stream), payload))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn header_block(method: &str, namespace: &str) -> Vec<u8> {
    // Entries 3 and 6 of the static table: ":method POST" and ":scheme http".
    let mut block = vec![0x83, 0x86];
    let mut field = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("a short value"));
        block.extend(value.as_bytes());
    };
    // Names by their number in the static table: :path, :authority, content-type.
    field(&[0x04], &format!("/{method}"));
    field(&[0x01], "localhost");
    field(&[0x0f, 0x10], "application/grpc");
    field(b"\x00\x02te", "trailers");
    if !namespace.is_empty() {
        field(b"\x00\x14containerd-namespace", namespace);
    }
    block
}
