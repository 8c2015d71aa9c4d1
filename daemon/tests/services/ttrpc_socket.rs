//! The ttrpc socket, side by side: what shims forward, and what they are refused.

use protobuf::Message;
use task_api::events::{EVENTS_SERVICE, Envelope, ForwardRequest};
use task_api::task::{Any, Timestamp};
use ttrpc::asynchronous::Client;

use crate::{Pair, Talk, Who};

async fn call(
    talk: &mut Talk,
    client: &Client,
    step: &str,
    service: &str,
    method: &str,
    payload: Vec<u8>,
) {
    let request = ttrpc::Request {
        service: service.to_owned(),
        method: method.to_owned(),
        timeout_nano: 10_000_000_000,
        payload,
        ..Default::default()
    };
    let told = match client.request(request).await {
        Ok(response) => format!("{:?}", response.payload),
        Err(ttrpc::Error::RpcStatus(status)) => {
            format!("{:?}: {}", status.code(), status.message())
        }
        Err(error) => format!("{error:?}"),
    };
    talk.note(step, &told.replace('_', "").to_lowercase());
}

fn envelope() -> Envelope {
    Envelope {
        timestamp: Some(Timestamp {
            seconds: 1,
            ..Default::default()
        })
        .into(),
        namespace: "ns".into(),
        topic: "/tasks/exit".into(),
        event: Some(Any {
            type_url: "nobody/knows".into(),
            value: vec![255],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

async fn conversation(talk: &mut Talk, client: &Client) {
    let forward = |change: &dyn Fn(&mut Envelope)| {
        let mut envelope = envelope();
        change(&mut envelope);
        let request = ForwardRequest {
            envelope: Some(envelope).into(),
            ..Default::default()
        };
        request.write_to_bytes().unwrap()
    };
    // An envelope without an event, or none, is not asked of both: containerd 1.6 dies of it.
    for (step, payload) in [
        ("forward", forward(&|_| {})),
        ("no namespace", forward(&|e| e.namespace.clear())),
        ("bad topic", forward(&|e| e.topic = "x".into())),
        ("no time", forward(&|e| e.timestamp = None.into())),
        ("rubbish", vec![0xff; 9]),
    ] {
        call(talk, client, step, EVENTS_SERVICE, "Forward", payload).await;
    }
    call(
        talk,
        client,
        "unknown method",
        EVENTS_SERVICE,
        "Unheard",
        Vec::new(),
    )
    .await;
    call(
        talk,
        client,
        "unknown service",
        "of.nobody.Service",
        "Call",
        Vec::new(),
    )
    .await;
    call(
        talk,
        client,
        "after all that",
        EVENTS_SERVICE,
        "Forward",
        forward(&|_| {}),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shims_are_answered_as_by_containerd() {
    let pair = Pair::new();
    let mut talks = Vec::new();
    for (who, address) in [
        (Who::Ours, pair.ours.address()),
        (Who::Containerd, pair.reference.address()),
    ] {
        let mut talk = pair.talk(who).await;
        let address = format!("unix://{}.ttrpc", address.display());
        let client = Client::connect(&address).await.unwrap();
        conversation(&mut talk, &client).await;
        talks.push(talk);
    }
    crate::compare(&talks[0], &talks[1], &[]);
}
