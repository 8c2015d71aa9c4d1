//! Whether a daemon serves: one gRPC call, written by hand, since a client program takes longer to
//! start than the daemon that is timed.
//!
//! The call is `Version` of containerd's version service, whose request is empty. HTTP/2 frames
//! are those of RFC 9113, the header block is that of RFC 7541 without indexing.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHOD: &str = "/containerd.services.version.v1.Version/Version";
/// How long one attempt may take: a daemon listens before it serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// Flags of frames.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Asks the daemon at `socket` for its version; true once it has answered with a message.
pub(super) fn answers(socket: &Path) -> bool {
    ask(socket).unwrap_or(false)
}

fn ask(socket: &Path) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = PREFACE.to_vec();
    request.extend(frame(SETTINGS, 0, 0, &[]));
    request.extend(frame(HEADERS, END_HEADERS, 1, &header_block()));
    // An empty message: not compressed, no bytes.
    request.extend(frame(DATA, END_STREAM, 1, &[0; 5]));
    stream.write_all(&request)?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        match (head[3], head[4] & END_STREAM) {
            (DATA, _) => return Ok(true),
            // Trailers without a message: a refusal.
            (HEADERS, END_STREAM) => return Ok(false),
            _ => {}
        }
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

fn header_block() -> Vec<u8> {
    // Entries 3 and 6 of the static table: ":method POST" and ":scheme http".
    let mut block = vec![0x83, 0x86];
    let mut field = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("a short value"));
        block.extend(value.as_bytes());
    };
    // Names by their number in the static table: :path, :authority, content-type.
    field(&[0x04], METHOD);
    field(&[0x01], "localhost");
    field(&[0x0f, 0x10], "application/grpc");
    field(b"\x00\x02te", "trailers");
    block
}
