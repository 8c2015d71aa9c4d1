//! The service that shims forward their events to. Calls of one connection are answered one after
//! the other: the order of a shim's events is theirs.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::ttrpc::{self, Code, Request, Response};
use protobuf::Message;
use task_api::events::{EVENTS_SERVICE, ForwardRequest};
use tokio::net::{UnixListener, UnixStream};

use super::frame::{self, Outgoing, REQUEST, RESPONSE};
use super::refused;

/// Who takes events.
pub trait Receiver: Send + Sync + 'static {
    /// Takes an event, without waiting for anything.
    ///
    /// # Errors
    /// Why it is refused, for the shim.
    fn receive(&self, request: ForwardRequest) -> ttrpc::Result<()>;
}

/// Serves until the listener fails for good, which it does not.
pub async fn serve(listener: UnixListener, receiver: Arc<impl Receiver>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, receiver.clone()));
            }
            Err(error) => {
                // Out of descriptors or memory: those who wait are served when there are some.
                log::error!("events: accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, receiver: Arc<impl Receiver>) {
    loop {
        let frame = match frame::read(&stream).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                log::debug!("events: {error}");
                return;
            }
        };
        if frame.kind != REQUEST {
            continue;
        }
        let answer = answer(frame.payload, &*receiver);
        let sent = async {
            let bytes = frame::encode(frame.stream, RESPONSE, &answer.write_to_bytes()?)?;
            Outgoing::default().send(&stream, bytes).await
        };
        if let Err(error) = Box::pin(sent).await {
            log::debug!("events: {error}");
            return;
        }
    }
}

fn answer(payload: Option<Vec<u8>>, receiver: &impl Receiver) -> Response {
    let refusal = match handle(payload, receiver) {
        Ok(()) => return Response::default(),
        Err(ttrpc::Error::RpcStatus(status)) => status,
        Err(error) => ttrpc::get_status(Code::UNKNOWN, error),
    };
    let mut response = Response::new();
    response.set_status(refusal);
    response
}

fn handle(payload: Option<Vec<u8>>, receiver: &impl Receiver) -> ttrpc::Result<()> {
    let Some(payload) = payload else {
        let text = format!("a message of more than {} bytes", frame::MESSAGE_LIMIT);
        return Err(refused(Code::RESOURCE_EXHAUSTED, text));
    };
    let request = Request::parse_from_bytes(&payload)
        .map_err(|error| refused(Code::INVALID_ARGUMENT, format!("request: {error}")))?;
    // The words are those of containerd's server.
    if request.service != EVENTS_SERVICE {
        let text = format!("service {}", request.service);
        return Err(refused(Code::UNIMPLEMENTED, text));
    }
    if request.method != "Forward" {
        let text = format!("method {}", request.method);
        return Err(refused(Code::UNIMPLEMENTED, text));
    }
    let request = ForwardRequest::parse_from_bytes(&request.payload).map_err(|error| {
        let text = format!("ttrpc: error unmarshalling payload: {error}");
        refused(Code::INTERNAL, text)
    })?;
    receiver.receive(request)
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl Receiver for Seen {
        fn receive(&self, request: ForwardRequest) -> ttrpc::Result<()> {
            let envelope = request.envelope.unwrap_or_default();
            if envelope.topic.is_empty() {
                return Err(refused(Code::INVALID_ARGUMENT, "no topic"));
            }
            self.0.lock().unwrap().push(envelope.topic);
            Ok(())
        }
    }

    fn call(service: &str, payload: Vec<u8>) -> Request {
        Request {
            service: service.to_owned(),
            method: "Forward".to_owned(),
            payload,
            ..Request::default()
        }
    }

    #[tokio::test]
    async fn events_are_taken_and_everything_else_is_refused() {
        let (near, far) = UnixStream::pair().unwrap();
        let seen = Arc::new(Seen::default());
        tokio::spawn(connection(far, seen.clone()));
        let client = Client::new(near);
        let mut request = ForwardRequest::new();
        request.envelope.mut_or_insert_default().topic = "/t".to_owned();
        let payload = request.write_to_bytes().unwrap();
        let taken = client.call(call(EVENTS_SERVICE, payload.clone()), None);
        assert_eq!(taken.await.unwrap().payload, b"");
        for (service, payload, code) in [
            ("other", payload, Code::UNIMPLEMENTED),
            (EVENTS_SERVICE, vec![0xff], Code::INTERNAL),
            (EVENTS_SERVICE, Vec::new(), Code::INVALID_ARGUMENT),
        ] {
            let refused = client.call(call(service, payload), None).await.unwrap_err();
            assert!(
                matches!(&refused, ttrpc::Error::RpcStatus(status) if status.code() == code),
                "{refused:?}"
            );
        }
        assert_eq!(*seen.0.lock().unwrap(), ["/t"]);
    }
}
