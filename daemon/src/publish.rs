//! `wherryd publish`: hands the event on stdin to the daemon, for shims and hooks that cannot
//! speak to it themselves.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use containerd_shim_protos::ttrpc::Request;
use containerd_shim_protos::ttrpc::asynchronous::Client;
use protobuf::{Message, MessageField};
use task_api::events::{EVENTS_SERVICE, Envelope, ForwardRequest};
use task_api::time::to_timestamp;

/// The most that an event may have, in bytes.
const EVENT_LIMIT: u64 = 4 << 20;

/// Publishes the encoded Any on stdin at the daemon whose ttrpc socket is `address`.
///
/// # Errors
/// A text that says what went wrong.
pub async fn publish(address: &Path, topic: String, namespace: String) -> Result<(), String> {
    let mut event = Vec::new();
    std::io::stdin()
        .take(EVENT_LIMIT)
        .read_to_end(&mut event)
        .map_err(|error| format!("stdin: {error}"))?;
    let event = Message::parse_from_bytes(&event).map_err(|error| format!("event: {error}"))?;
    let envelope = Envelope {
        timestamp: MessageField::some(to_timestamp(SystemTime::now())),
        namespace,
        topic,
        event: MessageField::some(event),
        ..Envelope::default()
    };
    let request = ForwardRequest {
        envelope: MessageField::some(envelope),
        ..ForwardRequest::default()
    };
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", address.display());
    let client = Client::connect(&format!("unix://{}", address.display()))
        .await
        .map_err(|error| told(&error))?;
    let request = Request {
        service: EVENTS_SERVICE.to_owned(),
        method: "Forward".to_owned(),
        timeout_nano: i64::try_from(Duration::from_secs(5).as_nanos()).unwrap_or(0),
        payload: request.write_to_bytes().map_err(|error| told(&error))?,
        ..Request::default()
    };
    client
        .request(request)
        .await
        .map_err(|error| told(&error))?;
    Ok(())
}
