//! The relay against real FIFOs, pipes, terminals and processes. The tests play the client and
//! the container in threads of their own; the relay has one thread, as in the shim.

mod files;
mod input;
mod logger;
mod output;
mod quiet;
mod terminal;

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use sys::spawn::Stdio;
use tokio::task::LocalSet;

use super::{Opened, Request, open};

/// Every test ends by then; none needs a tenth of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test on a runtime like the shim's.
fn on_one_thread<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(DEADLINE, test).await.expect("in time");
    });
}

/// Waits until `condition` holds while the relay goes on.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE / 2;
    while !condition() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The result of a thread that plays a peer, had without stopping the relay.
struct Peer<T>(Receiver<T>);

fn peer<T: Send + 'static>(play: impl FnOnce() -> T + Send + 'static) -> Peer<T> {
    let (result, receiver) = channel();
    thread::spawn(move || {
        let _ = result.send(play());
    });
    Peer(receiver)
}

impl<T> Peer<T> {
    async fn done(self) -> T {
        let mut result = None;
        until("a peer ends", || {
            result = self.0.try_recv().ok();
            result.is_some()
        })
        .await;
        result.unwrap()
    }

    fn is_busy(&self) -> bool {
        matches!(self.0.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty))
    }
}

/// A client's folder with FIFOs.
struct Client {
    folder: tempfile::TempDir,
}

impl Client {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fifo(&self, name: &str) -> String {
        let path = self.path(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn request(&self, stdin: bool) -> Request {
        Request {
            stdin: if stdin {
                self.fifo("stdin")
            } else {
                String::new()
            },
            stdout: self.fifo("stdout"),
            stderr: self.fifo("stderr"),
            ..self.bare()
        }
    }

    fn bare(&self) -> Request {
        Request {
            container_id: "c1".to_owned(),
            namespace: "ns".to_owned(),
            runtime_dir: self.folder.path().to_path_buf(),
            ..Request::default()
        }
    }

    /// Reads a FIFO to its end as a client does: opened for reading, blocking.
    fn read(&self, name: &str) -> Peer<Vec<u8>> {
        let path = self.path(name);
        peer(move || {
            let mut bytes = Vec::new();
            File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        })
    }

    fn writer(&self, name: &str) -> File {
        OpenOptions::new()
            .write(true)
            .open(self.path(name))
            .unwrap()
    }
}

/// The container's end of a stream.
fn end(stdio: &mut Stdio) -> File {
    match std::mem::take(stdio) {
        Stdio::Fd(fd) => fd.into(),
        Stdio::Null => panic!("the stream is /dev/null"),
    }
}

async fn opened(request: &Request) -> Opened {
    open(request).await.unwrap()
}

/// Starts the relay; the receiver hears when it is drained.
fn start(opened: &mut Opened) -> Receiver<()> {
    let (drained, receiver) = channel();
    opened.relay.start(move || drained.send(()).unwrap());
    receiver
}

async fn drained(opened: &Opened, told: &Receiver<()>) {
    until("drained", || opened.relay.is_drained()).await;
    told.try_recv().expect("told that it is drained");
    assert!(told.try_recv().is_err(), "told once");
}

/// `length` bytes from which a lost, doubled or swapped piece is visible: a count to 250 that
/// skips one at each 64 KiB.
fn pattern(length: usize) -> Vec<u8> {
    const PIECE: usize = 64 * 1024;
    let count: Vec<u8> = (0..=250).cycle().take(PIECE + 251).collect();
    let mut bytes = Vec::with_capacity(length + PIECE);
    for piece in 0..length.div_ceil(PIECE) {
        bytes.extend_from_slice(&count[piece * 2 % 251..][..PIECE]);
    }
    bytes.truncate(length);
    bytes
}

/// What was logged so far by any test; a test looks for its own paths.
fn logged(text: &str) -> bool {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter().any(|line| line.contains(text))
}

fn keep_log() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Kept).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Kept;

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// Whether the process is gone or a zombie.
fn has_ended(pid: i32) -> bool {
    match std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) {
        Ok(stat) => stat
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .starts_with('Z'),
        Err(_) => true,
    }
}

fn write_all(mut end: File, bytes: Vec<u8>) -> Peer<bool> {
    peer(move || end.write_all(&bytes).is_ok())
}
