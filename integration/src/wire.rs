//! ttrpc frames on a unix socket, read and written by hand.
//!
//! The harness has its own few lines for this (ten bytes of header, then a message) instead of a
//! client library: a library refuses to send the malformed, oversized and half-finished frames
//! that the tests need, and would hide what a shim really answers.

use std::io::{self, Read, Write};

use protobuf::Message as _;
pub use ttrpc::proto::{Request, Response};

/// A frame that carries a request.
pub const TYPE_REQUEST: u8 = 1;
/// A frame that carries a response.
pub const TYPE_RESPONSE: u8 = 2;
/// The largest payload that the protocol allows, in bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// One frame as it travels: header fields and payload.
#[derive(Debug)]
pub struct Frame {
    /// Odd for calls of a client.
    pub stream: u32,
    /// [`TYPE_REQUEST`], [`TYPE_RESPONSE`] or anything a test wants to try.
    pub kind: u8,
    /// Zero for unary calls.
    pub flags: u8,
    /// The encoded message.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The ten header bytes for a payload of `length` bytes, which need not be the real length.
    pub fn header(length: u32, stream: u32, kind: u8, flags: u8) -> [u8; 10] {
        let mut header = [0; 10];
        header[..4].copy_from_slice(&length.to_be_bytes());
        header[4..8].copy_from_slice(&stream.to_be_bytes());
        header[8] = kind;
        header[9] = flags;
        header
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("payloads are small");
        let mut bytes = Self::header(length, self.stream, self.kind, self.flags).to_vec();
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// End of file between or inside frames, and whatever the socket says.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut header = [0; 10];
        from.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length > MAX_PAYLOAD {
            return Err(io::Error::other(format!("frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload)?;
        Ok(Self {
            stream: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            kind: header[8],
            flags: header[9],
            payload,
        })
    }

    /// Writes the frame in one go.
    ///
    /// # Errors
    /// Whatever the socket says.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.encode())
    }
}

/// A request frame for `service`/`method`; `timeout_nanos` of 0 means no deadline.
pub fn request(
    stream: u32,
    service: &str,
    method: &str,
    timeout_nanos: i64,
    message: Vec<u8>,
) -> Frame {
    let mut request = Request::new();
    request.service = service.to_owned();
    request.method = method.to_owned();
    request.timeout_nano = timeout_nanos;
    request.payload = message;
    Frame {
        stream,
        kind: TYPE_REQUEST,
        flags: 0,
        payload: request.write_to_bytes().expect("requests encode"),
    }
}
