//! The server over real sockets: our own frames where the crate's client would not send them, the
//! crate's client elsewhere.

use super::frame::{self, FrameReader, MESSAGE_LIMIT, REQUEST};
use super::*;
use protobuf::Message;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use ttrpc::Code;
use ttrpc::proto::{Request, Response};

const V2: &str = "containerd.task.v2.Task";
const V3: &str = "containerd.task.v3.Task";

/// Echoes payloads; Wait never answers, Kill panics, Stats answers more than fits.
#[derive(Clone)]
struct Echo {
    /// Closed, that is dropped, when a Wait in flight is.
    waiting: mpsc::UnboundedSender<mpsc::UnboundedSender<()>>,
}

impl TaskHandler for Echo {
    fn call(&self, call: Call) -> impl Future<Output = Result<Vec<u8>, Refusal>> + 'static {
        let waiting = self.waiting.clone();
        async move {
            match call.method {
                Method::Wait => {
                    let (alive, gone) = mpsc::unbounded_channel::<()>();
                    waiting.send(alive.clone()).unwrap();
                    drop(waiting);
                    std::future::pending::<()>().await;
                    drop((alive, gone));
                    Ok(Vec::new())
                }
                Method::Kill => panic!("as the test wants"),
                Method::Stats => Ok(vec![0; MESSAGE_LIMIT + 1]),
                Method::Delete => Err(Refusal::new(Code::NOT_FOUND, "container not created")),
                _ => Ok([format!("{:?}:", call.api).as_bytes(), &call.payload].concat()),
            }
        }
    }
}

struct Bed {
    server: Server,
    path: std::path::PathBuf,
    waits: mpsc::UnboundedReceiver<mpsc::UnboundedSender<()>>,
    _dir: tempfile::TempDir,
}

fn bed_for(peers: Peers) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (waiting, waits) = mpsc::unbounded_channel();
    let server = Server::start_for(listener.into(), Echo { waiting }, peers).unwrap();
    Bed {
        server,
        path,
        waits,
        _dir: dir,
    }
}

fn bed() -> Bed {
    bed_for(Peers {
        uid: sys::process::euid(),
        gid: sys::process::egid(),
    })
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    let set = tokio::task::LocalSet::new();
    tokio::time::timeout(Duration::from_secs(20), set.run_until(test))
        .await
        .expect("the test hangs")
}

fn request(service: &str, method: &str, payload: &[u8], timeout: i64) -> Vec<u8> {
    let request = Request {
        service: service.into(),
        method: method.into(),
        payload: payload.to_vec(),
        timeout_nano: timeout,
        ..Default::default()
    };
    request.write_to_bytes().unwrap()
}

struct Client(UnixStream, FrameReader);

impl Client {
    async fn new(bed: &Bed) -> Self {
        Self(
            UnixStream::connect(&bed.path).await.unwrap(),
            FrameReader::default(),
        )
    }

    async fn send(&mut self, stream: u32, kind: u8, message: &[u8]) {
        let mut out = Vec::new();
        frame::write(&mut out, stream, kind, message);
        self.0.write_all(&out).await.unwrap();
    }

    async fn reply(&mut self) -> Option<(u32, Response)> {
        let frame = self.1.next(&mut self.0).await.ok()??;
        assert_eq!(frame.kind, frame::RESPONSE);
        Some((
            frame.stream,
            Response::parse_from_bytes(&frame.payload.unwrap()).unwrap(),
        ))
    }

    async fn code(&mut self, stream: u32) -> Code {
        let (got, response) = self.reply().await.expect("the connection was closed");
        assert_eq!(got, stream);
        response.status.code()
    }
}

#[tokio::test]
async fn both_generations_are_served_and_refusals_keep_their_code() {
    local(async {
        let bed = bed();
        let mut c = Client::new(&bed).await;
        for (stream, service, want) in [(1, V2, "V2:x"), (3, V3, "V3:x")] {
            c.send(stream, REQUEST, &request(service, "State", b"x", 0))
                .await;
            let (got, response) = c.reply().await.unwrap();
            assert_eq!(
                (got, response.payload.as_slice()),
                (stream, want.as_bytes())
            );
            assert_eq!(response.status.code(), Code::OK);
        }
        c.send(5, REQUEST, &request(V2, "Delete", b"", 0)).await;
        let (_, response) = c.reply().await.unwrap();
        assert_eq!(response.status.code(), Code::NOT_FOUND);
        assert_eq!(response.status.message, "container not created");
        for method in Method::ALL {
            assert_eq!(Method::of(method.name()), Some(method));
        }
        // The crate's client, as a peer we did not write.
        let address = format!("unix://{}", bed.path.display());
        let client = ttrpc::asynchronous::Client::connect(&address)
            .await
            .unwrap();
        let req = Request::parse_from_bytes(&request(V3, "Pids", b"p", 0)).unwrap();
        assert_eq!(client.request(req).await.unwrap().payload, b"V3:p");
        assert_eq!(bed.server.connections(), 2);
        drop((c, client));
        bed.server.emptied().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_unknown_is_unimplemented() {
    local(async {
        let bed = bed();
        let mut c = Client::new(&bed).await;
        for (stream, service, method) in [
            (1, "containerd.runtime.sandbox.v1.Sandbox", "CreateSandbox"),
            (3, "containerd.task.v4.Task", "State"),
            (5, V3, "Migrate"),
            (7, "", ""),
        ] {
            c.send(stream, REQUEST, &request(service, method, b"", 0))
                .await;
            assert_eq!(
                c.code(stream).await,
                Code::UNIMPLEMENTED,
                "{service} {method}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn bad_frames_harm_nobody_else() {
    local(async {
        let bed = bed();
        let (mut c, mut other) = (Client::new(&bed).await, Client::new(&bed).await);
        other.send(1, REQUEST, &request(V2, "State", b"", 0)).await;
        c.send(1, REQUEST, b"\xff\xff nonsense").await;
        assert_eq!(c.code(1).await, Code::INVALID_ARGUMENT);
        c.send(4, REQUEST, &request(V2, "State", b"", 0)).await;
        assert_eq!(c.code(4).await, Code::INVALID_ARGUMENT);
        c.send(5, frame::DATA, b"stray").await;
        assert_eq!(c.code(5).await, Code::INVALID_ARGUMENT);
        c.send(6, 99, b"unknown type").await;
        c.send(7, REQUEST, &vec![0; MESSAGE_LIMIT + 1]).await;
        assert_eq!(c.code(7).await, Code::RESOURCE_EXHAUSTED);
        // A handler that panics, and one whose reply is too long, answer like any other.
        c.send(9, REQUEST, &request(V2, "Kill", b"", 0)).await;
        assert_eq!(c.code(9).await, Code::INTERNAL);
        c.send(11, REQUEST, &request(V2, "Stats", b"", 0)).await;
        assert_eq!(c.code(11).await, Code::RESOURCE_EXHAUSTED);
        c.send(13, REQUEST, &request(V2, "State", b"", 0)).await;
        assert_eq!(c.code(13).await, Code::OK);
        // A connection that ends within a frame.
        c.0.write_all(&[0, 0, 1, 0, 0]).await.unwrap();
        drop(c);
        assert_eq!(other.code(1).await, Code::OK);
        other.send(3, REQUEST, &request(V2, "State", b"", 0)).await;
        assert_eq!(other.code(3).await, Code::OK);
    })
    .await;
}

#[tokio::test]
async fn a_call_ends_with_its_deadline_or_its_connection() {
    local(async {
        let mut bed = bed();
        let mut c = Client::new(&bed).await;
        c.send(1, REQUEST, &request(V2, "Wait", b"", 20_000_000))
            .await;
        let first = bed.waits.recv().await.unwrap();
        assert_eq!(c.code(1).await, Code::DEADLINE_EXCEEDED);
        first.closed().await;
        c.send(3, REQUEST, &request(V2, "Wait", b"", 0)).await;
        let second = bed.waits.recv().await.unwrap();
        assert!(!second.is_closed());
        // Other calls are not held by it.
        c.send(5, REQUEST, &request(V2, "State", b"", 0)).await;
        assert_eq!(c.code(5).await, Code::OK);
        drop(c);
        second.closed().await;
        bed.server.emptied().await;
    })
    .await;
}

#[tokio::test]
async fn a_peer_of_another_user_or_group_is_refused() {
    local(async {
        let own = Peers {
            uid: sys::process::euid(),
            gid: sys::process::egid(),
        };
        for peers in [
            Peers {
                uid: own.uid + 1,
                ..own
            },
            Peers {
                gid: own.gid + 1,
                ..own
            },
        ] {
            let bed = bed_for(peers);
            let mut c = Client::new(&bed).await;
            let mut out = Vec::new();
            frame::write(&mut out, 1, REQUEST, &request(V2, "State", b"", 0));
            // The write may fail as well as the read: the far end is closed.
            let _closed = c.0.write_all(&out).await;
            assert!(c.reply().await.is_none());
            assert_eq!(bed.server.connections(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn stopping_lets_replies_leave_and_closes_the_rest() {
    local(async {
        let mut bed = bed();
        let mut c = Client::new(&bed).await;
        c.send(1, REQUEST, &request(V2, "Wait", b"", 100_000_000))
            .await;
        bed.waits.recv().await.unwrap();
        let (code, ()) = tokio::join!(c.code(1), bed.server.stop(Duration::from_secs(10)));
        assert_eq!(code, Code::DEADLINE_EXCEEDED);
        assert!(c.reply().await.is_none());
        let refused = UnixStream::connect(&bed.path).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        // A call that never ends does not hold the end.
        let mut bed = self::bed();
        let mut c = Client::new(&bed).await;
        c.send(1, REQUEST, &request(V2, "Wait", b"", 0)).await;
        bed.waits.recv().await.unwrap();
        bed.server.stop(Duration::from_millis(50)).await;
        assert_eq!(bed.server.connections(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_not_read_from() {
    local(async {
        let bed = bed();
        let mut c = Client::new(&bed).await;
        let call = request(V2, "State", &vec![1; 100_000], 0);
        let mut out = Vec::new();
        for stream in 0..200 {
            frame::write(&mut out, stream * 2 + 1, REQUEST, &call);
        }
        let (mut from, mut to) = c.0.split();
        // 20 MB cannot be written while nothing is read: the server holds one reply, not all.
        let write = tokio::time::timeout(Duration::from_millis(200), to.write_all(&out));
        assert!(write.await.is_err());
        let mut reader = FrameReader::default();
        assert!(
            reader
                .next(&mut from)
                .await
                .unwrap()
                .unwrap()
                .payload
                .unwrap()
                .len()
                > 100_000
        );
    })
    .await;
}
