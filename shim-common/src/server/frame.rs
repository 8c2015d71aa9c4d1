//! The frames of ttrpc: a header of ten bytes (length, stream id, type, flags; numbers in network
//! order) and a protobuf message. Reading keeps its progress, so that a reader can be dropped at
//! any await and taken up again.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest message either side accepts, in bytes; ttrpc's own limit.
pub(crate) const MESSAGE_LIMIT: usize = 4 << 20;
/// Type of a frame that opens a call.
pub(crate) const REQUEST: u8 = 1;
/// Type of a frame that answers one.
pub(crate) const RESPONSE: u8 = 2;
/// Type of a frame of a stream's data, which no unary call has.
pub(crate) const DATA: u8 = 3;

const HEADER: usize = 10;
/// How much room is made at once: a header that promises 4 MiB does not get them before they come.
const STEP: usize = 16 * 1024;

/// One frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The call it belongs to.
    pub(crate) stream: u32,
    /// One of the types above, or one we do not know.
    pub(crate) kind: u8,
    /// The message; `None` when it was longer than [`MESSAGE_LIMIT`] and was skipped.
    pub(crate) payload: Option<Vec<u8>>,
    /// Length that the header told.
    pub(crate) length: usize,
}

/// Appends a frame to `out`.
pub(crate) fn write(out: &mut Vec<u8>, stream: u32, kind: u8, message: &[u8]) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    out.reserve(HEADER + message.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(message);
}

/// Reads frames; holds what has come of the next one.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    header: [u8; HEADER],
    filled: usize,
    payload: Vec<u8>,
    skipped: usize,
}

impl FrameReader {
    /// The next frame, `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// Those of reading, and `UnexpectedEof` when the stream ends within a frame.
    pub(crate) async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Option<Frame>> {
        while let Some(rest) = self.header.get_mut(self.filled..).filter(|r| !r.is_empty()) {
            match from.read(rest).await? {
                0 if self.filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.filled += count,
            }
        }
        let [a, b, c, d, e, f, g, h, kind, _flags] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let stream = u32::from_be_bytes([e, f, g, h]);
        if length > MESSAGE_LIMIT {
            self.skip(from, length).await?;
        } else {
            self.fill(from, length).await?;
        }
        let payload = std::mem::take(&mut self.payload);
        (self.filled, self.skipped) = (0, 0);
        let payload = (length <= MESSAGE_LIMIT).then_some(payload);
        Ok(Some(Frame {
            stream,
            kind,
            payload,
            length,
        }))
    }

    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<()> {
        while self.payload.len() < length {
            let missing = length - self.payload.len();
            self.payload.reserve(missing.min(STEP));
            let mut part = (&mut *from).take(missing as u64);
            if part.read_buf(&mut self.payload).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    async fn skip(&mut self, from: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<()> {
        while self.skipped < length {
            self.payload.clear();
            self.payload.reserve(STEP);
            let mut part = (&mut *from).take((length - self.skipped).min(STEP) as u64);
            match part.read_buf(&mut self.payload).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.skipped += count,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_whole_and_oversized_ones_are_skipped() {
        let mut bytes = Vec::new();
        write(&mut bytes, 1, REQUEST, b"one");
        write(&mut bytes, 3, DATA, b"");
        write(&mut bytes, 5, REQUEST, &vec![7; MESSAGE_LIMIT + 1]);
        write(&mut bytes, 7, RESPONSE, &vec![8; MESSAGE_LIMIT]);
        let mut from = bytes.as_slice();
        let mut reader = FrameReader::default();
        let mut seen = Vec::new();
        while let Some(frame) = reader.next(&mut from).await.unwrap() {
            seen.push((frame.stream, frame.kind, frame.payload.map(|p| p.len())));
        }
        let max = Some(MESSAGE_LIMIT);
        assert_eq!(
            seen,
            [
                (1, REQUEST, Some(3)),
                (3, DATA, Some(0)),
                (5, REQUEST, None),
                (7, RESPONSE, max)
            ]
        );
        let cut = reader.next(&mut &bytes[..12]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_reader_dropped_midway_goes_on() {
        let mut bytes = Vec::new();
        write(&mut bytes, 9, REQUEST, b"payload");
        let (mut far, mut near) = tokio::io::duplex(64);
        let mut reader = FrameReader::default();
        for byte in bytes {
            // Each read is cancelled when it has eaten what there is.
            tokio::select! {
                biased;
                frame = reader.next(&mut near) => panic!("{frame:?} is not whole yet"),
                () = std::future::ready(()) => {}
            }
            tokio::io::AsyncWriteExt::write_all(&mut far, &[byte])
                .await
                .unwrap();
        }
        let frame = reader.next(&mut near).await.unwrap().unwrap();
        assert_eq!(
            (frame.stream, frame.payload.unwrap().as_slice()),
            (9, &b"payload"[..])
        );
    }
}
