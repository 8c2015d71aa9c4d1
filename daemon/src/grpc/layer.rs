//! What is done around every call: it is counted, and it is ended when the daemon stops, with
//! `Unavailable`, so that a client knows to ask the next daemon instead of taking a broken
//! connection for the end of its container.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use core_api::Kind;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes, Service};
use tonic::{Code, Status};
use tower_layer::Layer;

use crate::metrics::calls::{Calls, Open};

/// What a client is told whose call ends with the daemon.
const STOPPING: &str = "the daemon is stopping";
/// The most that the words of a refusal may have, in bytes.
const WORDS_LIMIT: usize = 4096;
/// The one call of one answer that waits for its own sake.
const WAIT: &str = "/containerd.services.tasks.v1.Tasks/Wait";

/// Which calls are ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// None: the daemon serves.
    #[default]
    None,
    /// Those that only wait: streams, and Wait.
    Waits,
    /// All.
    All,
}

/// Wraps the services.
#[derive(Debug, Clone)]
pub struct Around {
    calls: Arc<Calls>,
    ending: watch::Receiver<Ending>,
}

impl Around {
    /// Counts into `calls`, and ends calls as `ending` says.
    pub fn new(calls: Arc<Calls>, ending: watch::Receiver<Ending>) -> Self {
        Self { calls, ending }
    }
}

impl<S> Layer<S> for Around {
    type Service = Wrapped<S>;

    fn layer(&self, inner: S) -> Wrapped<S> {
        Wrapped {
            inner,
            around: self.clone(),
        }
    }
}

/// The services, wrapped.
#[derive(Debug, Clone)]
pub struct Wrapped<S> {
    inner: S,
    around: Around,
}

impl<S> Service<Request<Body>> for Wrapped<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(open) = self.around.calls.open(request.uri().path()) else {
            return Box::pin(self.inner.call(request));
        };
        let waits = open.kind() != Kind::Unary || request.uri().path() == WAIT;
        let level = if waits { Ending::Waits } else { Ending::All };
        let open = Arc::new(std::sync::Mutex::new(open));
        let request = request.map(|inner| {
            Body::new(Received {
                inner,
                frames: Frames::default(),
                open: open.clone(),
            })
        });
        let mut ended = ended(self.around.ending.clone(), level);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut answer = tokio::select! {
                biased;
                answer = answer => answer?,
                () = &mut ended => Status::unavailable(STOPPING).into_http(),
            };
            correct(answer.headers_mut());
            if let Some(code) = code_in(answer.headers()) {
                lock(&open).end(code);
            }
            Ok(answer.map(|inner| {
                Body::new(Sent {
                    inner,
                    frames: Frames::default(),
                    open,
                    ended,
                    done: false,
                })
            }))
        })
    }
}

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits until calls of `level` are ended.
fn ended(mut ending: watch::Receiver<Ending>, level: Ending) -> Ended {
    Box::pin(async move {
        if ending.wait_for(|ending| *ending >= level).await.is_err() {
            // Nobody can end calls any more.
            std::future::pending::<()>().await;
        }
    })
}

fn lock(open: &std::sync::Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    open.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes a refusal one that clients understand. A message past a limit gets the code that Go's
/// gRPC has for it: the library underneath calls it out of range, and clients look for an
/// exhausted resource. Words are cut where they would not pass as a header, as when they name an
/// id of many kilobytes.
fn correct(headers: &mut HeaderMap) {
    let Some(words) = headers.get("grpc-message").map(HeaderValue::as_bytes) else {
        return;
    };
    let cut = (words.len() > WORDS_LIMIT).then(|| {
        // Not within an escape of three bytes.
        let escape = words[WORDS_LIMIT - 2..WORDS_LIMIT].iter();
        let at = escape.rev().position(|byte| *byte == b'%');
        HeaderValue::from_bytes(&words[..WORDS_LIMIT - at.map_or(0, |at| at + 1)])
    });
    let text = String::from_utf8_lossy(words).replace("%20", " ");
    if code_in(headers) == Some(Code::OutOfRange) && text.contains("coded message length too large")
    {
        let code = HeaderValue::from(i32::from(Code::ResourceExhausted));
        headers.insert("grpc-status", code);
    }
    if let Some(Ok(cut)) = cut {
        headers.insert("grpc-message", cut);
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get("grpc-status")?;
    Some(Code::from_bytes(code.as_bytes()))
}

/// Counts gRPC's messages in a stream of bytes: each has five bytes before it, of which the last
/// four are its length.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; 5],
    head_length: usize,
    left: usize,
}

impl Frames {
    /// How many messages begin in `bytes`, which follow those before.
    fn begin_in(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let skip = self.left.min(bytes.len());
                self.left -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            self.head[self.head_length] = bytes[0];
            self.head_length += 1;
            bytes = &bytes[1..];
            if self.head_length == self.head.len() {
                let [_, length @ ..] = self.head;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.head_length = 0;
                begun += 1;
            }
        }
        begun
    }
}

/// What a client sends, counted.
struct Received {
    inner: Body,
    frames: Frames,
    open: Arc<std::sync::Mutex<Open>>,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let begun = self.frames.begin_in(data);
            lock(&self.open).received(begun);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What a client is sent, counted; it ends early when the daemon stops.
struct Sent {
    inner: Body,
    frames: Frames,
    open: Arc<std::sync::Mutex<Open>>,
    ended: Ended,
    done: bool,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let Poll::Ready(mut frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            ready!(self.ended.as_mut().poll(cx));
            self.done = true;
            lock(&self.open).end(Code::Unavailable);
            let mut trailers = HeaderMap::new();
            let code = HeaderValue::from(i32::from(Code::Unavailable));
            trailers.insert("grpc-status", code);
            trailers.insert("grpc-message", HeaderValue::from_static(STOPPING));
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        };
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let begun = self.frames.begin_in(data);
                    lock(&self.open).sent(begun);
                } else if let Some(trailers) = frame.trailers_mut() {
                    correct(trailers);
                    if let Some(code) = code_in(trailers) {
                        lock(&self.open).end(code);
                    }
                }
            }
            Some(Err(status)) => lock(&self.open).end(status.code()),
            None => lock(&self.open).end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_between_escapes() {
        for start in 0..4 {
            let words = "x".repeat(start) + &"%20".repeat(2000);
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from(5));
            headers.insert("grpc-message", words.parse().unwrap());
            correct(&mut headers);
            let cut = headers["grpc-message"].to_str().unwrap();
            assert!(cut.len() <= WORDS_LIMIT && cut.len() > WORDS_LIMIT - 3);
            assert_eq!((cut.len() - start) % 3, 0, "{start}");
        }
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for length in [0u8, 3, 200] {
            stream.extend_from_slice(&[0, 0, 0, 0, length]);
            stream.extend(std::iter::repeat_n(9, length.into()));
        }
        for size in [1, 2, 5, 7, 1000] {
            let mut frames = Frames::default();
            let begun: u64 = stream.chunks(size).map(|part| frames.begin_in(part)).sum();
            assert_eq!(begun, 3, "{size}");
        }
    }
}
