//! A connection that calls go out on: any number at once, answers in any order.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::ttrpc::{self, Code, Request, Response};
use protobuf::{Enum, Message};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::frame::{self, Outgoing, RESPONSE};
use super::refused;

type Answer = oneshot::Sender<ttrpc::Result<Response>>;
type OnClose = Box<dyn FnOnce() + Send>;

/// A connection; it is closed when dropped.
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    stream: UnixStream,
    outgoing: tokio::sync::Mutex<Outgoing>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    last: u32,
    calls: HashMap<u32, Answer>,
    on_close: Option<OnClose>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} calls)", self.shared.state().calls.len())
    }
}

impl Client {
    /// Calls over `stream` from now on. Needs a tokio runtime.
    pub fn new(stream: UnixStream) -> Self {
        let shared = Arc::new(Shared {
            stream,
            outgoing: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        });
        tokio::spawn(read_answers(shared.clone()));
        Self { shared }
    }

    /// Runs `then` once, when the other end closes the connection or breaks the protocol; at once
    /// if that has happened.
    pub fn on_close(&self, then: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        if state.closed {
            drop(state);
            then();
        } else {
            state.on_close = Some(Box::new(then));
        }
    }

    /// Sends `request` and waits for its answer: within `limit`, or as long as it takes. A caller
    /// that goes away or runs out of time does not disturb the other calls.
    ///
    /// # Errors
    /// `RpcStatus` with what the other side refused with, or with `DEADLINE_EXCEEDED`;
    /// `RemoteClosed` when the connection has ended.
    pub async fn call(
        &self,
        mut request: Request,
        limit: Option<Duration>,
    ) -> ttrpc::Result<Response> {
        let Some(limit) = limit else {
            return self.exchange(&request).await;
        };
        request.timeout_nano = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
        match tokio::time::timeout(limit, self.exchange(&request)).await {
            Ok(answer) => answer,
            Err(_) => {
                let text = format!("{}: no answer within {limit:?}", request.method);
                Err(refused(Code::DEADLINE_EXCEEDED, text))
            }
        }
    }

    async fn exchange(&self, request: &Request) -> ttrpc::Result<Response> {
        let others = |error: &dyn fmt::Display| ttrpc::Error::Others(error.to_string());
        let message = request.write_to_bytes().map_err(|error| others(&error))?;
        let (answer, answered) = oneshot::channel();
        let call = Call {
            shared: &self.shared,
            stream: self.shared.register(answer)?,
        };
        let frame = frame::encode(call.stream, frame::REQUEST, &message)
            .map_err(|error| refused(Code::INVALID_ARGUMENT, error))?;
        let sent = async {
            let mut outgoing = self.shared.outgoing.lock().await;
            outgoing.send(&self.shared.stream, frame).await
        };
        // A connection that does not take the request any more may still have brought its end.
        if sent.await.is_err() {
            return Err(ttrpc::Error::RemoteClosed);
        }
        answered.await.unwrap_or(Err(ttrpc::Error::RemoteClosed))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.state().on_close = None;
        // Ends the reader, which owns the other half of what is shared.
        let _ = shutdown(&self.shared.stream);
    }
}

fn shutdown(stream: &UnixStream) -> io::Result<()> {
    let socket: std::os::unix::net::UnixStream = stream.as_fd().try_clone_to_owned()?.into();
    socket.shutdown(Shutdown::Both)
}

/// A call that waits for its answer; forgotten when dropped.
struct Call<'a> {
    shared: &'a Shared,
    stream: u32,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.calls.remove(&self.stream);
        if state.calls.is_empty() {
            state.calls = HashMap::new();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a number for a call: odd ones are the client's, and one that still waits keeps its.
    fn register(&self, answer: Answer) -> ttrpc::Result<u32> {
        let mut state = self.state();
        if state.closed {
            return Err(ttrpc::Error::RemoteClosed);
        }
        let mut stream = state.last.wrapping_add(2) | 1;
        while state.calls.contains_key(&stream) {
            stream = stream.wrapping_add(2);
        }
        state.last = stream;
        state.calls.insert(stream, answer);
        Ok(stream)
    }
}

async fn read_answers(shared: Arc<Shared>) {
    while let Ok(Some(frame)) = frame::read(&shared.stream).await {
        if frame.kind != RESPONSE {
            continue;
        }
        let Some(answer) = shared.state().calls.remove(&frame.stream) else {
            continue;
        };
        // Who does not wait any more is not told.
        let _ = answer.send(understood(frame.payload));
    }
    let ended = {
        let mut state = shared.state();
        state.closed = true;
        // Dropped senders tell those who wait.
        state.calls = HashMap::new();
        state.on_close.take()
    };
    if let Some(then) = ended {
        then();
    }
}

fn understood(payload: Option<Vec<u8>>) -> ttrpc::Result<Response> {
    let Some(payload) = payload else {
        let text = format!("an answer of more than {} bytes", frame::MESSAGE_LIMIT);
        return Err(refused(Code::RESOURCE_EXHAUSTED, text));
    };
    let mut response = Response::parse_from_bytes(&payload)
        .map_err(|error| ttrpc::Error::Others(format!("an answer that makes no sense: {error}")))?;
    match response.status.take() {
        Some(mut status) if status.code.value() != Code::OK.value() => {
            if status.code.enum_value().is_err() {
                // One that does not exist would be taken for the default, which is OK.
                status.set_code(Code::UNKNOWN);
            }
            Err(ttrpc::Error::RpcStatus(status))
        }
        _ => Ok(response),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn request(method: &str) -> Request {
        Request {
            method: method.to_owned(),
            ..Request::default()
        }
    }

    fn response(stream: u32, payload: &[u8]) -> Vec<u8> {
        let response = Response {
            payload: payload.to_vec(),
            ..Response::default()
        };
        frame::encode(stream, RESPONSE, &response.write_to_bytes().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn answers_find_their_calls_in_any_order() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let client = Client::new(near);
        let (a, b) = (request("a"), request("b"));
        let server = async {
            let first = frame::read(&far).await.unwrap().unwrap();
            let second = frame::read(&far).await.unwrap().unwrap();
            assert_eq!((first.stream % 2, second.stream % 2), (1, 1));
            far.write_all(&response(77, b"nobody's")).await.unwrap();
            let bytes = response(second.stream, b"2");
            far.write_all(&bytes).await.unwrap();
            far.write_all(&response(first.stream, b"1")).await.unwrap();
        };
        let (one, two, ()) = tokio::join!(client.call(a, None), client.call(b, None), server);
        assert_eq!(one.unwrap().payload, b"1");
        assert_eq!(two.unwrap().payload, b"2");
        assert!(client.shared.state().calls.is_empty());
    }

    #[tokio::test]
    async fn a_silent_peer_costs_a_caller_its_limit_and_nobody_else_anything() {
        let (near, far) = UnixStream::pair().unwrap();
        let client = Client::new(near);
        let limit = Some(Duration::from_millis(20));
        let late = client.call(request("State"), limit).await.unwrap_err();
        assert!(
            matches!(&late, ttrpc::Error::RpcStatus(status)
                if status.code() == Code::DEADLINE_EXCEEDED),
            "{late:?}"
        );
        assert!(client.shared.state().calls.is_empty());
        let (told, tells) = oneshot::channel();
        client.on_close(move || told.send(()).unwrap());
        drop(far);
        tells.await.unwrap();
        let (told, tells) = oneshot::channel();
        client.on_close(move || told.send(()).unwrap());
        tells.await.unwrap();
        let closed = client.call(request("State"), None).await.unwrap_err();
        assert!(matches!(closed, ttrpc::Error::RemoteClosed), "{closed:?}");
    }

    #[tokio::test]
    async fn rubbish_ends_the_call_and_not_the_daemon() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let client = Client::new(near);
        let server = async {
            let asked = frame::read(&far).await.unwrap().unwrap();
            let rubbish = frame::encode(asked.stream, RESPONSE, b"\xff\xff").unwrap();
            far.write_all(&rubbish).await.unwrap();
        };
        let (answer, ()) = tokio::join!(client.call(request("x"), None), server);
        assert!(matches!(answer, Err(ttrpc::Error::Others(_))), "{answer:?}");
        let server = async {
            frame::read(&far).await.unwrap().unwrap();
            far.write_all(b"HTTP/1.1 400 Bad Request\r\n")
                .await
                .unwrap();
            drop(far);
        };
        let (answer, ()) = tokio::join!(client.call(request("x"), None), server);
        assert!(
            matches!(answer, Err(ttrpc::Error::RemoteClosed)),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn a_dropped_client_closes_its_connection() {
        let (near, far) = UnixStream::pair().unwrap();
        let client = Client::new(near);
        client.on_close(|| panic!("nobody is told of what was wanted"));
        drop(client);
        assert!(frame::read(&far).await.unwrap().is_none());
    }
}
