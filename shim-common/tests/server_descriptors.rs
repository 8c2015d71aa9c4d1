//! The server out of descriptors, in a process of its own since the limit is the process's: it
//! rests instead of spinning, and serves the waiting client when there are descriptors again.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test without the harness"
)]

use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::io::{Read, Seek};
use std::time::Duration;

use shim_common::server::{Call, Server, TaskHandler};
use sys::spawn::Spawn;
use task_api::status::Refusal;
use tokio::net::UnixStream;

#[derive(Clone)]
struct Stub;

impl TaskHandler for Stub {
    fn call(&self, call: Call) -> impl Future<Output = Result<Vec<u8>, Refusal>> + 'static {
        std::future::ready(Ok(call.payload))
    }
}

/// Nanoseconds on a CPU so far, from an already open /proc/self/schedstat.
fn cpu(schedstat: &mut File) -> u64 {
    let mut text = String::new();
    schedstat.rewind().unwrap();
    schedstat.read_to_string(&mut text).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

async fn scenario() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = Server::start(listener.into(), Stub).unwrap();
    let mut schedstat = File::open("/proc/self/schedstat").unwrap();

    let pid = std::process::id();
    let args = [
        "prlimit".to_owned(),
        format!("--pid={pid}"),
        "--nofile=64:1024".to_owned(),
    ];
    let args = args.map(OsString::from).to_vec();
    let child = Spawn {
        args,
        ..Spawn::new("/usr/bin/prlimit")
    }
    .spawn()
    .unwrap();
    assert_eq!(sys::wait::wait_pid(child.pid).unwrap().status, 0);
    let mut fillers: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    fillers.pop();

    let _client = UnixStream::connect(&path).await.unwrap();
    let before = cpu(&mut schedstat);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let used = Duration::from_nanos(cpu(&mut schedstat) - before);
    assert_eq!(server.connections(), 0);
    assert!(
        used < Duration::from_millis(100),
        "{used:?} of 400 ms on the CPU"
    );

    fillers.clear();
    while server.connections() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), scenario())
            .await
            .expect("the test hangs");
    });
}
