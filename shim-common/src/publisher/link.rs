//! The connection to the daemon's event service: one call at a time.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use protobuf::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use ttrpc::Code;
use ttrpc::proto::{KeyValue, Request, Response};

use crate::server::frame::{self, FrameReader, REQUEST, RESPONSE};

/// The key under which containerd expects a call's namespace.
const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";

/// Why an event has not been taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// The daemon could not be reached or did not say: to be tried again.
    Transport(String),
    /// It said no; it would again.
    Refused(String),
}

impl From<io::Error> for SendError {
    fn from(e: io::Error) -> Self {
        Self::Transport(e.to_string())
    }
}

/// The way to the daemon.
#[derive(Debug)]
pub(super) struct Link {
    address: PathBuf,
    namespace: String,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    stream: UnixStream,
    reader: FrameReader,
    next: u32,
}

impl Link {
    /// Connects to nothing yet.
    pub(super) fn new(address: &OsStr, namespace: &str) -> Self {
        Self {
            address: socket_path(address),
            namespace: namespace.to_owned(),
            open: None,
        }
    }

    /// Whether a connection is kept; it may have ended at the other side.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Ends the connection.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Sends one encoded ForwardRequest and awaits the answer. A future dropped midway leaves a
    /// connection that must be closed.
    pub(super) async fn forward(&mut self, event: &[u8], limit: Duration) -> Result<(), SendError> {
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let stream = UnixStream::connect(&self.address).await.map_err(|e| {
                    SendError::Transport(format!("connect {}: {e}", self.address.display()))
                })?;
                none.insert(Open {
                    stream,
                    reader: FrameReader::default(),
                    next: 1,
                })
            }
        };
        let request = Request {
            service: "containerd.services.events.ttrpc.v1.Events".to_owned(),
            method: "Forward".to_owned(),
            payload: event.to_owned(),
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
            metadata: vec![KeyValue {
                key: NAMESPACE_KEY.to_owned(),
                value: self.namespace.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let message = request
            .write_to_bytes()
            .map_err(|e| SendError::Refused(e.to_string()))?;
        let id = open.next;
        open.next = id.wrapping_add(2);
        let mut out = Vec::new();
        frame::write(&mut out, id, REQUEST, &message);
        open.stream.write_all(&out).await?;
        loop {
            let ended = || SendError::Transport("the daemon closed the connection".to_owned());
            let frame = open
                .reader
                .next(&mut open.stream)
                .await?
                .ok_or_else(ended)?;
            if frame.stream == id && frame.kind == RESPONSE {
                return judge(&frame.payload.unwrap_or_default());
            }
        }
    }
}

/// What an answer means for the event.
fn judge(payload: &[u8]) -> Result<(), SendError> {
    let response = Response::parse_from_bytes(payload)
        .map_err(|e| SendError::Transport(format!("malformed answer: {e}")))?;
    let text = format!("{:?}: {}", response.status.code, response.status.message);
    match response.status.code.enum_value() {
        Ok(Code::OK) => Ok(()),
        // These tell of the way or of a daemon about to end, not of the event.
        Ok(Code::UNAVAILABLE | Code::CANCELLED | Code::DEADLINE_EXCEEDED) => {
            Err(SendError::Transport(text))
        }
        _ => Err(SendError::Refused(text)),
    }
}

/// The socket's path; an abstract name, `@name`, becomes the form with a leading zero byte.
fn socket_path(address: &OsStr) -> PathBuf {
    let bytes = address.as_bytes();
    let bytes = bytes.strip_prefix(b"unix://").unwrap_or(bytes);
    match bytes.strip_prefix(b"@") {
        Some(name) => OsString::from_vec([b"\0", name].concat()).into(),
        None => OsString::from_vec(bytes.to_vec()).into(),
    }
}
