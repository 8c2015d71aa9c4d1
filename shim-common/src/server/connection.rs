//! One connection: reads requests, runs each as a future of its own, writes replies as they come.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use protobuf::{Message, MessageField};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use ttrpc::Code;
use ttrpc::proto::{Request, Response, Status};

use super::frame::{self, DATA, Frame, FrameReader, MESSAGE_LIMIT, REQUEST, RESPONSE};
use super::{Call, Method, TaskApi, TaskHandler};
use crate::helper;
use task_api::status::Refusal;

/// How many calls of one connection may be open at once. A daemon keeps one Wait per process, so
/// this is far above what one needs, and bounds what one may cost.
const CALLS_LIMIT: usize = 4096;

/// What a call ends with: the stream it belongs to and its encoded Response.
type Reply = (u32, Vec<u8>);

/// Serves one connection to its end: that of the client, or, once `stopped` says so, that of the
/// calls in flight. Dropping the future drops those.
///
/// # Errors
/// Those of reading and writing; they concern this connection only.
pub(super) async fn serve(
    mut stream: UnixStream,
    handler: impl TaskHandler,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let (mut from, mut to) = stream.split();
    let mut reader = FrameReader::default();
    // Not tasks of the runtime: those are allocated with an alignment that fragments the heap of
    // the C library, by 100 kB over a thousand calls.
    let mut calls = FuturesUnordered::new();
    let mut out: Vec<u8> = Vec::new();
    let mut sent = 0;
    let mut stopping = *stopped.borrow();
    loop {
        if out.is_empty() && stopping && calls.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            // While a client does not take its replies, nothing more is read from it.
            count = to.write(out.get(sent..).unwrap_or_default()), if !out.is_empty() => {
                sent += count?;
                if sent >= out.len() {
                    (out, sent) = (Vec::new(), 0);
                }
            }
            Some(reply) = calls.next(), if !calls.is_empty() && out.is_empty() => {
                let (stream, message): Reply = reply;
                frame::write(&mut out, stream, RESPONSE, &message);
            }
            frame = reader.next(&mut from), if !stopping && out.is_empty() => {
                let Some(frame) = frame? else { return Ok(()) };
                let stream = frame.stream;
                match begin(frame, calls.len()) {
                    Begun::Call(call, deadline) => {
                        let handler = handler.clone();
                        let answer = async move { handler.call(call).await };
                        calls.push(async move { (stream, run(answer, deadline).await) });
                    }
                    Begun::Refused(refusal) => {
                        frame::write(&mut out, stream, RESPONSE, &encode(Err(refusal)));
                    }
                    Begun::Ignored => {}
                }
            }
            changed = stopped.changed(), if !stopping => {
                // A server that was dropped has nobody left to reply for.
                changed.map_err(|_| io::Error::other("the server has ended"))?;
                stopping = *stopped.borrow();
            }
        }
    }
}

/// What one frame asks for.
enum Begun {
    Call(Call, Option<Duration>),
    Refused(Refusal),
    Ignored,
}

/// Reads one frame. Whatever is wrong with it concerns its stream alone.
fn begin(frame: Frame, open: usize) -> Begun {
    let refuse = |code, message: String| Begun::Refused(Refusal::new(code, message));
    let Some(payload) = frame.payload else {
        let text = format!(
            "message length {} exceed maximum message size of {MESSAGE_LIMIT}",
            frame.length
        );
        return refuse(Code::RESOURCE_EXHAUSTED, text);
    };
    match frame.kind {
        REQUEST => {}
        // The end of a client's half of a stream without data: Go's client says so for unary calls
        // too in some versions, and expects no answer.
        DATA if payload.is_empty() => return Begun::Ignored,
        DATA => {
            let text = format!("stream {} is no longer active", frame.stream);
            return refuse(Code::INVALID_ARGUMENT, text);
        }
        kind => {
            log::debug!("server: frame of unknown type {kind} ignored");
            return Begun::Ignored;
        }
    }
    if frame.stream % 2 != 1 {
        let text = format!("stream id {} must be odd for a client's call", frame.stream);
        return refuse(Code::INVALID_ARGUMENT, text);
    }
    let request = match Request::parse_from_bytes(&payload) {
        Ok(request) => request,
        Err(e) => {
            return refuse(
                Code::INVALID_ARGUMENT,
                format!("malformed ttrpc request: {e}"),
            );
        }
    };
    drop(payload);
    let (service, method) = (&request.service, &request.method);
    let Some(api) = TaskApi::of(service) else {
        return refuse(Code::UNIMPLEMENTED, format!("service {}", shorten(service)));
    };
    let Some(method) = Method::of(method) else {
        let text = format!("method {} of service {service}", shorten(method));
        return refuse(Code::UNIMPLEMENTED, text);
    };
    if open >= CALLS_LIMIT {
        let text = format!("{CALLS_LIMIT} calls are open on this connection");
        return refuse(Code::RESOURCE_EXHAUSTED, text);
    }
    let deadline = u64::try_from(request.timeout_nano)
        .ok()
        .filter(|nanos| *nanos > 0);
    let call = Call {
        method,
        api,
        payload: request.payload,
    };
    Begun::Call(call, deadline.map(Duration::from_nanos))
}

/// A name from the wire, short enough for an error text.
fn shorten(name: &str) -> String {
    name.chars().take(128).collect()
}

/// Awaits the answer, until `deadline` at the longest; a handler that panics is an answer too.
async fn run(
    answer: impl Future<Output = Result<Vec<u8>, Refusal>>,
    deadline: Option<Duration>,
) -> Vec<u8> {
    let guarded = async {
        helper::contain(answer).await.unwrap_or_else(|_| {
            let text = "the shim failed to handle this call";
            Err(Refusal::new(Code::INTERNAL, text))
        })
    };
    let result = match deadline {
        None => guarded.await,
        Some(deadline) => tokio::time::timeout(deadline, guarded)
            .await
            .unwrap_or_else(|_| {
                Err(Refusal::new(
                    Code::DEADLINE_EXCEEDED,
                    "context deadline exceeded",
                ))
            }),
    };
    let reply = encode(result);
    if reply.len() <= MESSAGE_LIMIT {
        return reply;
    }
    let text = format!("reply of {} bytes exceeds {MESSAGE_LIMIT}", reply.len());
    encode(Err(Refusal::new(Code::RESOURCE_EXHAUSTED, text)))
}

/// The Response message of a result.
fn encode(result: Result<Vec<u8>, Refusal>) -> Vec<u8> {
    let mut response = Response::new();
    let mut status = Status::new();
    match result {
        Ok(payload) => response.payload = payload,
        Err(refusal) => {
            status.code = refusal.code.into();
            status.message = refusal.message;
        }
    }
    response.status = MessageField::some(status);
    // Writing to memory fails for nothing but a message of 2 GiB, which no handler makes.
    response.write_to_bytes().unwrap_or_default()
}
