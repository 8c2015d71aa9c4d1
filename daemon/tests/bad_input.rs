//! Whatever clients send, the daemon lives, answers with the right code, and serves others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use api::{Peer, code};
use common::{Bed, Shims, eventually};
use core_api::containers::{
    Container, CreateContainerRequest, CreateContainerResponse, GetContainerRequest,
    GetContainerResponse, container,
};
use core_api::events_service::{Envelope, PublishRequest, SubscribeRequest};
use core_api::{Any, namespaces};
use tokio::time::timeout;
use tonic::Code;

/// How the daemon is seen to live: it is the same process, and answers.
struct Alive {
    bed: Bed,
    pid: u32,
}

impl Alive {
    fn new(more: &str) -> Self {
        let bed = Bed::with_config(Shims::Ours, more);
        let pid = bed.pid();
        Self { bed, pid }
    }

    #[track_caller]
    fn check(&self, what: &str) {
        let version = self.bed.ctr(&["version"]);
        assert_eq!(version.code, Some(0), "after {what}: {version:?}");
        assert_eq!(self.bed.pid(), self.pid, "after {what}");
    }

    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.unwrap().split_whitespace().next().unwrap();
        kilobytes.parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid))
            .unwrap()
            .count()
    }

    async fn peer(&self) -> Peer {
        Peer::connect(&self.bed.address(), &self.bed.namespace).await
    }
}

fn record(bytes: usize) -> CreateContainerRequest {
    let container = Container {
        id: "c".into(),
        runtime: Some(container::Runtime {
            name: "r".into(),
            options: None,
        }),
        spec: Some(Any {
            type_url: "x".into(),
            value: vec![7; bytes],
        }),
        ..Container::default()
    };
    CreateContainerRequest {
        container: Some(container),
    }
}

const CREATE: &str = "containers.v1.Containers/Create";

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_huge_messages_are_refused() {
    let alive = Alive::new("[grpc]\nmax_recv_message_size = 1048576\n");
    let peer = alive.peer().await;
    // A record sent where an id is asked for: field 1 is a message there and a string here.
    let mixed = peer
        .call::<_, GetContainerResponse>("containers.v1.Containers/Get", record(9))
        .await;
    assert_ne!(code(&mixed), Code::Ok, "{mixed:?}");
    alive.check("a malformed message");

    let huge = peer.call::<_, CreateContainerResponse>(CREATE, record(2 << 20));
    let huge = huge.await;
    assert_eq!(code(&huge), Code::ResourceExhausted, "as containerd's");
    alive.check("a huge message");

    let fits = peer.call::<_, CreateContainerResponse>(CREATE, record(1 << 19));
    fits.await.unwrap();
    let many = "n".repeat(100_000);
    let long = GetContainerRequest { id: many };
    let long = peer
        .call::<_, GetContainerResponse>("containers.v1.Containers/Get", long)
        .await;
    assert_eq!(code(&long), Code::NotFound);
    let empty = PublishRequest {
        topic: "/a/b".into(),
        event: None,
    };
    let empty = peer.call::<_, ()>("events.v1.Events/Publish", empty).await;
    assert_eq!(code(&empty), Code::InvalidArgument, "containerd dies of it");
    alive.check("an event without an event");
}

/// What a raw connection is answered within a second, up to 64 KiB.
fn raw(path: &std::path::Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    // The daemon may have closed it already.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
        if answer.len() > 64 << 10 {
            break;
        }
    }
    answer
}

#[test]
fn rubbish_on_the_sockets_harms_nobody() {
    let alive = Alive::new("");
    let grpc = alive.bed.address();
    let ttrpc = alive.bed.dir.path().join("s.sock.ttrpc");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let frame = |length: u32, kind: u8, flags: u8, stream: u32, body: &[u8]| {
        let mut frame = preface.clone();
        frame.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&length.to_be_bytes()[1..]);
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(body);
        frame
    };
    let cases: [(&str, Vec<u8>); 9] = [
        ("HTTP/1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        (
            "a POST",
            b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\n".to_vec(),
        ),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
        ("half a preface", preface[..10].to_vec()),
        ("an oversize frame", frame(0x00ff_ffff, 0, 0, 1, &[1; 64])),
        ("data on stream 0", frame(1, 0, 0, 0, &[1])),
        ("a broken header block", frame(3, 1, 5, 1, &[0xff; 3])),
        ("an even stream", frame(1, 1, 5, 2, &[0x82])),
    ];
    for (what, bytes) in cases {
        raw(&grpc, &bytes);
        alive.check(what);
    }
    let message = |length: u32, stream: u32, kind: u8, body: &[u8]| {
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&stream.to_be_bytes());
        message.extend_from_slice(&[kind, 0]);
        message.extend_from_slice(body);
        message
    };
    let cases: [(&str, Vec<u8>); 7] = [
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
        ("an oversize frame", message(u32::MAX, 1, 1, &[1; 64])),
        ("a broken request", message(4, 1, 1, &[0xff; 4])),
        ("an even stream", message(4, 2, 1, &[0xff; 4])),
        ("an answer", message(0, 1, 2, &[])),
    ];
    for (what, bytes) in cases {
        raw(&ttrpc, &bytes);
        alive.check(what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_subscribes_and_does_not_read_is_dropped() {
    let alive = Alive::new("");
    let peer = alive.peer().await;
    let subscribe = |peer: Peer| async move {
        let message = SubscribeRequest::default();
        let method = "events.v1.Events/Subscribe";
        peer.stream::<_, Envelope>(method, message).await.unwrap()
    };
    let mut idle = subscribe(alive.peer().await).await;
    let mut reader = subscribe(alive.peer().await).await;
    let before = alive.resident();
    let event = Any {
        type_url: "x".into(),
        value: vec![7; 4096],
    };
    let count = 6_000;
    let reading = tokio::spawn(async move {
        let mut seen = 0;
        while seen < count {
            reader.message().await.unwrap().unwrap();
            seen += 1;
        }
    });
    let publishing = async {
        let mut publishers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (peer, event) = (peer.clone(), event.clone());
            publishers.spawn(async move {
                for _ in 0..count / 8 {
                    let message = PublishRequest {
                        topic: "/a/b".into(),
                        event: Some(event.clone()),
                    };
                    peer.call::<_, ()>("events.v1.Events/Publish", message)
                        .await
                        .unwrap();
                }
            });
        }
        publishers.join_all().await;
    };
    timeout(Duration::from_secs(60), publishing).await.unwrap();
    timeout(Duration::from_secs(30), reading)
        .await
        .unwrap()
        .unwrap();
    let grown = alive.resident().saturating_sub(before);
    assert!(grown < 40 << 10, "{grown} kB for 24 MB of events");
    let mut seen = 0;
    let end = loop {
        match timeout(Duration::from_secs(10), idle.message())
            .await
            .unwrap()
        {
            Ok(Some(_)) => seen += 1,
            Ok(None) => panic!("it ended without a word after {seen}"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::ResourceExhausted, "{end:?}");
    assert!(seen < count, "{seen}");
    alive.check("a client that does not read");
}

#[test]
fn many_silent_connections_leave_room_for_others() {
    let alive = Alive::new("");
    let before = alive.descriptors();
    // Half of them say nothing, the other half the first part of a preface.
    let connections: Vec<_> = (0..600)
        .map(|at| {
            let mut stream = UnixStream::connect(alive.bed.address()).unwrap();
            if at % 2 == 0 {
                stream.write_all(b"PRI * HT").unwrap();
            }
            stream
        })
        .collect();
    alive.check("600 connections");
    assert!(alive.descriptors() > before + 500, "they are held");
    let since = Instant::now();
    eventually("the silent are dropped", || {
        alive.descriptors() <= before + 50
    });
    assert!(since.elapsed() < Duration::from_secs(20));
    drop(connections);
    alive.check("their end");

    for _ in 0..5000 {
        drop(UnixStream::connect(alive.bed.address()).unwrap());
    }
    alive.check("5,000 short connections");
    eventually("nothing is left", || alive.descriptors() <= before + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_authorities_are_answered() {
    let alive = Alive::new("");
    for origin in [
        "http://localhost",
        "http://x",
        "http://[::1]:80",
        "http://%2Frun%2Fx.sock",
    ] {
        let endpoint = tonic::transport::Endpoint::try_from(format!(
            "unix://{}",
            alive.bed.address().display()
        ))
        .unwrap();
        let Ok(origin) = origin.parse() else { continue };
        let channel = endpoint.origin(origin).connect().await.unwrap();
        let peer = Peer::over(channel, "ns");
        let list = namespaces::ListNamespacesRequest::default();
        peer.call::<_, namespaces::ListNamespacesResponse>("namespaces.v1.Namespaces/List", list)
            .await
            .unwrap();
    }
    alive.check("odd authorities");
}

#[test]
fn sockets_and_folders_are_closed_to_others() {
    let alive = Alive::new("[grpc]\ngid = 12\n");
    let dir = alive.bed.dir.path();
    for socket in ["s.sock", "s.sock.ttrpc"] {
        let meta = fs::metadata(dir.join(socket)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o660, "{socket}");
        assert_eq!((meta.uid(), meta.gid()), (0, 12), "{socket}");
    }
    alive.bed.run_detached("c1");
    alive.bed.ctr(&["snapshots", "prepare", "a"]).ok();
    let native = ["snapshots", "--snapshotter", "native", "prepare", "a"];
    alive.bed.ctr(&native).ok();
    // What nobody else has any business in, whatever is below: CVE-2024-25621.
    for folder in [
        "io.wherry.metadata.v1",
        "io.containerd.content.v1.content",
        "io.containerd.content.v1.content/blobs",
        "io.containerd.content.v1.content/ingest",
        "io.containerd.snapshotter.v1.overlayfs",
        "io.containerd.snapshotter.v1.overlayfs/snapshots",
        "io.containerd.snapshotter.v1.native",
    ] {
        let mode = fs::metadata(dir.join("root").join(folder)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o700, "{folder}");
    }
    let namespace = alive.bed.namespace.as_str();
    let tasks = "io.containerd.runtime.v2.task";
    for folder in [
        "root".to_owned(),
        "state".to_owned(),
        "root/io.wherry.metadata.v1".to_owned(),
        format!("state/{tasks}"),
        format!("state/{tasks}/{namespace}"),
        format!("state/{tasks}/{namespace}/c1"),
        format!("root/{tasks}"),
        format!("root/{tasks}/{namespace}"),
        format!("root/{tasks}/{namespace}/c1"),
    ] {
        let mode = fs::metadata(dir.join(&folder)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777 & !0o711, 0, "{folder}");
    }
}
