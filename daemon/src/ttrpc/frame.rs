//! The frames of ttrpc: a header of ten bytes (length, stream id, type, flags; numbers in network
//! order), then a protobuf message.

use std::io;

use tokio::net::UnixStream;

/// The longest message either side accepts, in bytes; ttrpc's own limit.
pub const MESSAGE_LIMIT: usize = 4 << 20;
/// Type of a frame that opens a call.
pub const REQUEST: u8 = 1;
/// Type of a frame that answers one.
pub const RESPONSE: u8 = 2;

const HEADER: usize = 10;
/// How much room is made at once: a header that promises 4 MiB does not get them before they come.
const STEP: usize = 16 << 10;

/// One frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// The call it belongs to.
    pub stream: u32,
    /// [`REQUEST`], [`RESPONSE`], or a type of streams, which unary calls do not have.
    pub kind: u8,
    /// The message; `None` when it was longer than [`MESSAGE_LIMIT`] and was skipped.
    pub payload: Option<Vec<u8>>,
}

/// A frame in bytes.
///
/// # Errors
/// `InvalidInput` for a message longer than [`MESSAGE_LIMIT`].
pub fn encode(stream: u32, kind: u8, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= MESSAGE_LIMIT);
    let Some(length) = length else {
        let text = format!("a message of {} bytes is too long", message.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    let mut bytes = Vec::with_capacity(HEADER + message.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(message);
    Ok(bytes)
}

/// The next frame, `None` at the end of the stream. Between frames nothing is held but the header.
///
/// # Errors
/// Those of reading, and `UnexpectedEof` when the stream ends within a frame.
pub async fn read(from: &UnixStream) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match read_some(from, &mut header[filled..]).await? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    let [a, b, c, d, e, f, g, h, kind, _flags] = header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let stream = u32::from_be_bytes([e, f, g, h]);
    // In a box, so that the buffers are no part of a task that only waits for the next header.
    let payload = Box::pin(read_payload(from, length)).await?;
    Ok(Some(Frame {
        stream,
        kind,
        payload,
    }))
}

/// Reads a message, or reads past one that is too long.
async fn read_payload(from: &UnixStream, length: usize) -> io::Result<Option<Vec<u8>>> {
    let keep = length <= MESSAGE_LIMIT;
    let mut payload = Vec::new();
    let mut missing = length;
    while missing > 0 {
        let start = if keep { payload.len() } else { 0 };
        let step = missing.min(STEP);
        payload.resize(start + step, 0);
        let count = read_some(from, &mut payload[start..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        payload.truncate(start + count);
        missing -= count;
    }
    Ok(keep.then_some(payload))
}

async fn read_some(from: &UnixStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Bytes on their way into a socket. When a writer is dropped midway they stay, and the next one
/// sends the rest before its own: a frame once begun is never cut.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Sends what is left of earlier frames, then `frame`. Dropped before the frame has begun,
    /// none of it is sent.
    ///
    /// # Errors
    /// Those of writing.
    pub async fn send(&mut self, to: &UnixStream, frame: Vec<u8>) -> io::Result<()> {
        self.flush(to).await?;
        self.bytes = frame;
        self.flush(to).await
    }

    async fn flush(&mut self, to: &UnixStream) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match to.try_write(&self.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        *self = Self::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn frames_come_back_whole_and_long_ones_are_skipped() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let writer = tokio::spawn(async move {
            far.write_all(&encode(1, REQUEST, b"one").unwrap())
                .await
                .unwrap();
            let long = u32::try_from(MESSAGE_LIMIT + 1).unwrap();
            far.write_all(&long.to_be_bytes()).await.unwrap();
            far.write_all(&[0, 0, 0, 3, RESPONSE, 0]).await.unwrap();
            far.write_all(&vec![7; MESSAGE_LIMIT + 1]).await.unwrap();
            let longest = encode(5, RESPONSE, &vec![8; MESSAGE_LIMIT]).unwrap();
            far.write_all(&longest).await.unwrap();
            far.write_all(&longest[..12]).await.unwrap();
        });
        let mut seen = Vec::new();
        let cut = loop {
            match read(&near).await {
                Ok(frame) => {
                    let frame = frame.unwrap();
                    seen.push((frame.stream, frame.kind, frame.payload.map(|p| p.len())));
                }
                Err(error) => break error,
            }
        };
        let expected = [
            (1, REQUEST, Some(3)),
            (3, RESPONSE, None),
            (5, RESPONSE, Some(MESSAGE_LIMIT)),
        ];
        assert_eq!(seen, expected);
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        writer.await.unwrap();
        assert!(encode(1, REQUEST, &vec![0; MESSAGE_LIMIT + 1]).is_err());
    }

    #[tokio::test]
    async fn a_frame_whose_writer_is_dropped_midway_is_finished_by_the_next() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut out = Outgoing::default();
        // More than the socket takes at once: the writer is dropped in the middle of it.
        let long = encode(1, REQUEST, &vec![7; 3 << 20]).unwrap();
        tokio::select! {
            biased;
            sent = out.send(&near, long) => panic!("{sent:?}"),
            () = std::future::ready(()) => {}
        }
        // This one is dropped before it begins.
        let never = encode(3, REQUEST, b"never").unwrap();
        tokio::select! {
            biased;
            sent = out.send(&near, never) => panic!("{sent:?}"),
            () = std::future::ready(()) => {}
        }
        let writer = tokio::spawn(async move {
            out.send(&near, encode(5, REQUEST, b"next").unwrap())
                .await
                .unwrap();
        });
        let first = read(&far).await.unwrap().unwrap();
        assert_eq!(first.payload.unwrap().len(), 3 << 20);
        assert_eq!(read(&far).await.unwrap().unwrap().stream, 5);
        assert!(read(&far).await.unwrap().is_none());
        writer.await.unwrap();
    }
}
