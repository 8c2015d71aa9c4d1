//! Connections of gRPC clients: how many at a time, and how long one may stay silent.
//!
//! Every connection costs a descriptor, and a process has few. Past a share of them no more are
//! accepted until one ends; the kernel queues who comes meanwhile. So that connections on which
//! nobody ever speaks do not take all the places, one that has not brought HTTP/2's first bytes
//! in time is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// How many bytes HTTP/2 begins with; what follows is the protocol's to bound.
const PREFACE: usize = 24;
/// How long they may take.
const SILENCE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted, as when descriptors are short.
const RETRY: Duration = Duration::from_millis(100);

/// The connections of clients as they come.
pub fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(places()));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(accept(listener, places, sender));
    ReceiverStream::new(receiver)
}

/// How many connections there may be: most of the descriptors that the process may have.
fn places() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    (limit / 4 * 3).clamp(64, 64 << 10)
}

/// Accepts until nobody takes the connections any more.
async fn accept(
    listener: UnixListener,
    places: Arc<Semaphore>,
    taker: Sender<io::Result<Connection>>,
) {
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = loop {
            tokio::select! {
                () = taker.closed() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => break stream,
                    Err(error) => log::warn!("accept: {error}"),
                }
            }
            tokio::time::sleep(RETRY).await;
        };
        let connection = Connection {
            stream,
            unspoken: Some((PREFACE, Box::pin(tokio::time::sleep(SILENCE)))),
            _place: place,
        };
        if taker.send(Ok(connection)).await.is_err() {
            return;
        }
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// How many of the first bytes are still to come, and until when.
    unspoken: Option<(usize, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some((left, until)) = &mut self.unspoken else {
            return read;
        };
        if read.is_pending() {
            ready!(until.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        *left = left.saturating_sub(buffer.filled().len() - before);
        if *left == 0 {
            self.unspoken = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
