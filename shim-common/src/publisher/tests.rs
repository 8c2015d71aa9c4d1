//! The outbox against a sink that goes away, refuses, and comes back.

use super::*;
use crate::server::frame::{self, FrameReader};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use ttrpc::Code;
use ttrpc::proto::{Request, Response};

/// The other end: records the requests, answers as told (with OK when told nothing).
struct Sink {
    seen: Rc<RefCell<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
    path: PathBuf,
}

/// What the sink does with one request.
enum Answer {
    Status(Code),
    HangUp,
}

impl Sink {
    fn new(path: &Path, answers: Vec<Answer>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (log, answers) = (Rc::clone(&seen), RefCell::new(VecDeque::from(answers)));
        let task = tokio::task::spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut reader = FrameReader::default();
                // One connection at a time: so it is with one sender.
                while let Ok(Some(f)) = reader.next(&mut stream).await {
                    log.borrow_mut()
                        .push(Request::parse_from_bytes(&f.payload.unwrap()).unwrap());
                    let answer = answers.borrow_mut().pop_front();
                    let code = match answer.unwrap_or(Answer::Status(Code::OK)) {
                        Answer::Status(code) => code,
                        Answer::HangUp => break,
                    };
                    let mut response = Response::new();
                    response.status.mut_or_insert_default().code = code.into();
                    let mut out = Vec::new();
                    let bytes = response.write_to_bytes().unwrap();
                    frame::write(&mut out, f.stream, frame::RESPONSE, &bytes);
                    stream.write_all(&out).await.unwrap();
                }
            }
        });
        Self {
            seen,
            task,
            path: path.to_owned(),
        }
    }

    /// Ends it with its connections; returns what it has seen.
    async fn end(self) -> Vec<Request> {
        self.task.abort();
        let _cancelled = self.task.await;
        std::fs::remove_file(&self.path).unwrap();
        self.seen.take()
    }
}

fn envelopes(requests: &[Request]) -> Vec<Envelope> {
    let one = |r: &Request| {
        assert_eq!(r.service, "containerd.services.events.ttrpc.v1.Events");
        assert_eq!(
            (r.method.as_str(), r.timeout_nano),
            ("Forward", 5_000_000_000)
        );
        ForwardRequest::parse_from_bytes(&r.payload)
            .unwrap()
            .envelope
            .unwrap()
    };
    requests.iter().map(one).collect()
}

fn values(requests: &[Request]) -> Vec<u8> {
    envelopes(requests)
        .iter()
        .map(|e| e.event.value[0])
        .collect()
}

fn event(n: u8) -> Any {
    Any {
        type_url: "test".into(),
        value: vec![n],
        ..Default::default()
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    let set = tokio::task::LocalSet::new();
    tokio::time::timeout(Duration::from_secs(30), set.run_until(test))
        .await
        .expect("test hangs")
}

const LONG: Duration = Duration::from_secs(20);
const EXIT: &str = "/tasks/exit";

#[tokio::test]
async fn a_daemon_that_goes_away_and_comes_back_gets_everything_in_order() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let publisher = Publisher::new(Some(path.as_os_str()), "ns");
        // Not there yet.
        publisher.publish(EXIT, event(0));
        publisher.publish(EXIT, event(1));
        assert!(!publisher.flush(Duration::from_millis(150)).await);
        assert_eq!(publisher.depth(), 2);
        let sink = Sink::new(&path, vec![]);
        assert!(publisher.flush(LONG).await);
        let first = sink.end().await;
        assert_eq!(values(&first), [0, 1]);
        let envelope = &envelopes(&first)[0];
        assert_eq!(
            (envelope.namespace.as_str(), envelope.topic.as_str()),
            ("ns", EXIT)
        );
        assert_eq!(first[0].metadata[0].value, "ns");
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let sent = u64::try_from(envelope.timestamp.seconds).unwrap();
        assert!((since - 30..=since).contains(&sent));

        // Away while idle, and back: the kept connection is dead, and nobody pauses for that.
        publisher.publish(EXIT, event(2));
        publisher.publish(EXIT, event(3));
        let sink = Sink::new(&path, vec![]);
        assert!(publisher.flush(LONG).await);
        assert_eq!(values(&sink.end().await), [2, 3]);

        // It dies with the answer owed: the event is sent again, the same to the byte.
        let sink = Sink::new(&path, vec![Answer::Status(Code::OK), Answer::HangUp]);
        for n in 4..7 {
            publisher.publish(EXIT, event(n));
        }
        assert!(publisher.flush(LONG).await);
        let seen = sink.end().await;
        assert_eq!(values(&seen), [4, 5, 5, 6]);
        assert_eq!(seen[1].payload, seen[2].payload);
        assert_eq!(publisher.depth(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_refused_event_is_skipped_and_an_unavailable_daemon_is_not_a_refusal() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let answers = [
            Code::INVALID_ARGUMENT,
            Code::OK,
            Code::UNAVAILABLE,
            Code::CANCELLED,
        ];
        let sink = Sink::new(&path, answers.map(Answer::Status).into());
        let address = format!("unix://{}", path.display());
        let publisher = Publisher::new(Some(OsStr::new(&address)), "ns");
        for n in 0..4 {
            publisher.publish(EXIT, event(n));
        }
        assert_eq!(publisher.depth(), 4);
        assert!(publisher.flush(LONG).await);
        assert_eq!(values(&sink.end().await), [0, 1, 2, 2, 2, 3]);
    })
    .await;
}

#[tokio::test]
async fn ooms_are_coalesced_while_the_daemon_is_away() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let publisher = Publisher::new(Some(path.as_os_str()), "ns");
        for n in [1, 2, 1, 1, 2] {
            publisher.publish(queue::OOM, event(n));
        }
        publisher.publish(EXIT, event(3));
        assert_eq!(publisher.depth(), 3);
        let sink = Sink::new(&path, vec![]);
        assert!(publisher.flush(LONG).await);
        assert_eq!(values(&sink.end().await), [1, 2, 3]);
    })
    .await;
}

#[tokio::test]
async fn without_an_address_events_are_dropped() {
    local(async {
        for address in [None, Some(OsStr::new(""))] {
            let publisher = Publisher::new(address, "ns");
            publisher.publish(EXIT, event(0));
            assert_eq!(publisher.depth(), 0);
            assert!(publisher.flush(Duration::ZERO).await);
        }
    })
    .await;
}
