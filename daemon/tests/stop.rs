//! How the daemon stops, what it writes about itself, and in which form.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;

use std::time::{Duration, Instant};

use api::{Peer, code};
use common::{Bed, Shims, eventually};
use core_api::events_service::{Envelope, SubscribeRequest};
use core_api::tasks::{WaitRequest, WaitResponse};
use tokio::time::timeout;
use tonic::Code;

/// A Wait for `id` that goes on, in the background.
fn waiter(peer: &Peer, id: &str) -> tokio::task::JoinHandle<Result<WaitResponse, tonic::Status>> {
    let (peer, container_id) = (peer.without_limit(), id.to_owned());
    tokio::spawn(async move {
        let message = WaitRequest {
            container_id,
            exec_id: String::new(),
        };
        peer.call("tasks.v1.Tasks/Wait", message).await
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_that_the_daemon_stops() {
    let mut bed = Bed::new(Shims::Ours);
    bed.run_detached("w1");
    let peer = Peer::connect(&bed.address(), &bed.namespace).await;
    let mut events = peer
        .stream::<_, Envelope>("events.v1.Events/Subscribe", SubscribeRequest::default())
        .await
        .unwrap();
    let waiting = waiter(&peer, "w1");
    bed.signal("USR1");
    eventually("the wait is there", || {
        bed.signal("USR1");
        bed.log()
            .contains("of /containerd.services.tasks.v1.Tasks/Wait")
    });
    let since = Instant::now();
    bed.signal("TERM");
    let limit = Duration::from_secs(5);
    let answer = timeout(limit, waiting).await.unwrap().unwrap();
    assert_eq!(code(&answer), Code::Unavailable, "{answer:?}");
    let end = timeout(limit, events.message()).await.unwrap();
    assert_eq!(code(&end), Code::Unavailable, "{end:?}");
    drop((events, peer));
    assert_eq!(bed.ended(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(3));

    bed.start();
    bed.wait_status("w1", "RUNNING");
    let peer = Peer::connect(&bed.address(), &bed.namespace).await;
    let waiting = waiter(&peer, "w1");
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "w1"]).ok();
    let answer = timeout(limit, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.exit_status, 9, "the next daemon knows");
}

#[test]
fn a_silent_client_does_not_keep_the_daemon_from_stopping() {
    let mut bed = Bed::new(Shims::Ours);
    let _silent = std::os::unix::net::UnixStream::connect(bed.address()).unwrap();
    let since = Instant::now();
    bed.signal("TERM");
    assert_eq!(bed.ended(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_dumped() {
    let bed = Bed::new(Shims::Ours);
    bed.run_detached("d1");
    let peer = Peer::connect(&bed.address(), &bed.namespace).await;
    let message = SubscribeRequest {
        filters: vec!["topic==x".to_owned()],
    };
    let _events = peer
        .stream::<_, Envelope>("events.v1.Events/Subscribe", message)
        .await
        .unwrap();
    bed.signal("USR1");
    eventually("it is dumped", || bed.log().contains("END state dump"));
    let log = bed.log();
    let (pid, _) = bed.task("d1").unwrap();
    for text in [
        "BEGIN state dump".to_owned(),
        "kB resident".to_owned(),
        format!("task {}/d1: RUNNING, pid {pid}, shim ", bed.namespace),
        "topic==x".to_owned(),
        "0 events wait for it".to_owned(),
        "1 of /containerd.services.events.v1.Events/Subscribe".to_owned(),
    ] {
        assert!(log.contains(&text), "{text}: {log}");
    }
}

#[test]
fn the_log_is_json_where_that_is_wanted() {
    let bed = Bed::with_config(
        Shims::Ours,
        "[debug]\nformat = \"json\"\nlevel = \"debug\"\n",
    );
    bed.signal("USR1");
    eventually("it is dumped", || bed.log().contains("END state dump"));
    let log = bed.log();
    let mut lines = 0;
    for line in log.lines().skip_while(|line| !line.starts_with('{')) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["level", "msg", "time"] {
            assert!(value[key].is_string(), "{line}");
        }
        lines += 1;
    }
    assert!(lines > 3, "{log}");
}
