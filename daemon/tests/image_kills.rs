//! The daemon is killed under pulls, unpacking, commits and collections: nothing that it has
//! acknowledged is missing, nothing half written is visible, what was cut off goes on at its offset,
//! and `wherryd verify` has nothing to say. 20 s; five minutes with `WHERRY_SLOW=1`. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests run programs, and end where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;
#[path = "common/disk.rs"]
mod disk;
#[path = "common/image.rs"]
mod image;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use api::Peer;
use common::{Background, Bed, Shims, background, eventually, quietly, run};
use core_api::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use disk::Disk;
use image::{Image, Layer, digest, noise};
use tonic::Code;

fn content(root: &Path) -> PathBuf {
    root.join("io.containerd.content.v1.content")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// How much there is of the largest upload.
fn uploaded(root: &Path) -> u64 {
    let folders = entries(&content(root).join("ingest"));
    let sizes = folders
        .iter()
        .map(|folder| fs::metadata(folder.join("data")).map_or(0, |data| data.len()));
    sizes.max().unwrap_or(0)
}

/// Waits for `holds` without a pause, for windows that are short; answers whether it came.
fn caught(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// What a stopped root has is as it must be, but for what a killed daemon may leave.
#[track_caller]
fn is_sound(bed: &Bed) {
    let found = run(bed.command().arg("verify"));
    assert_eq!(found.code, Some(0), "{found:?}");
}

/// Debian's registry on a port of this machine, with its log.
struct Registry {
    port: u16,
    dir: tempfile::TempDir,
    _server: Background,
}

impl Registry {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let dir = tempfile::Builder::new().prefix("wg").tempdir().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            dir.path().join("data").display()
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(dir.path().join("err")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "docker-registry", "serve"]);
        command.arg(&file).stderr(log);
        let server = background(&mut command, &dir.path().join("log"));
        eventually("the registry listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self {
            port,
            dir,
            _server: server,
        }
    }

    fn push(&self, image: &Image, name: &str) -> String {
        let archive = self.dir.path().join("image.tar");
        image.write(&archive);
        let reference = format!("127.0.0.1:{}/{name}", self.port);
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("docker://{reference}"));
        run(&mut copy).ok();
        reference
    }

    /// The answers that the log has for one blob: status and bytes.
    fn answers(&self, digest: &str) -> Vec<(u16, u64)> {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let log = read("log") + &read("err");
        let mut found = Vec::new();
        for line in log.lines() {
            // The access log, in the web's common format.
            let Some((_, rest)) = line.split_once(&format!("/blobs/{digest} HTTP/1.1\" ")) else {
                continue;
            };
            if !line.contains("\"GET ") {
                continue;
            }
            let mut words = rest.split(' ');
            let number = |word: Option<&str>| word.and_then(|word| word.parse().ok()).unwrap_or(0);
            let status = u16::try_from(number(words.next())).unwrap();
            found.push((status, number(words.next())));
        }
        found
    }
}

/// Whether a program ends well, within what a busy machine may take.
fn ends_well(mut program: std::process::Child) -> bool {
    let deadline = Instant::now() + common::LIMIT * 6;
    while Instant::now() < deadline {
        if let Some(status) = program.try_wait().unwrap() {
            return status.success();
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let _ = program.kill();
    let _ = program.wait();
    false
}

/// Stands before the registry, and holds back what is more than `limit` bytes of an answer until
/// `open` is set. Ends with the test.
fn gate(registry: u16, limit: usize, open: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", registry)))
            else {
                continue;
            };
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            let open = open.clone();
            std::thread::spawn(move || {
                let (mut server, mut client) = (server, client);
                let (mut passed, mut buffer) = (0, [0; 16 << 10]);
                while let Ok(count @ 1..) = server.read(&mut buffer) {
                    while passed > limit && !open.load(Ordering::Relaxed) {
                        std::thread::park_timeout(Duration::from_millis(10));
                    }
                    if client.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                    passed += count;
                }
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

#[test]
fn a_pull_that_is_cut_off_goes_on_where_it_was() {
    let registry = Registry::new();
    let image = Image::new("x", vec![Layer::default().file("big", &noise(5, 3 << 20))]);
    registry.push(&image, "big:1");
    let layer = digest(&image.layers[0]);
    let length = image.layers[0].len() as u64;
    let disk = Disk::new(100 << 10);
    let mut bed = Bed::new(Shims::Ours);
    disk.serve(&mut bed);
    // ctr writes a mebibyte at once.
    let open = Arc::new(AtomicBool::new(false));
    let port = gate(registry.port, 3 << 19, open.clone());
    let reference = format!("127.0.0.1:{port}/big:1");
    let pull = ["images", "pull", "--plain-http", &reference];
    let mut client = quietly(bed.ctr_command().args(pull));
    let root = bed.root.clone();
    eventually("a part of it is there", || uploaded(&root) >= 1 << 20);
    bed.kill();
    open.store(true, Ordering::Relaxed);
    let _ = client.wait();
    let left = uploaded(&bed.root);
    assert!(left > 0 && left < length, "{left} of {length}");
    is_sound(&bed);
    let before = registry.answers(&layer).len();
    bed.start();
    let ended = quietly(bed.ctr_command().args(pull));
    assert!(ends_well(ended), "{}", bed.log());
    // The log is written when the answer has been.
    eventually("the registry has logged it", || {
        registry.answers(&layer).len() > before
    });
    let answers = registry.answers(&layer);
    let (status, sent) = *answers.last().unwrap();
    assert_eq!(status, 206, "{answers:?}");
    assert_eq!(sent, length - left, "{answers:?}, {left} were there");
    bed.stop();
    let found = run(bed.command().arg("verify"));
    assert_eq!(
        (found.code, found.stdout.as_str()),
        (Some(0), ""),
        "{found:?}"
    );
}

/// What a client knows of its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    /// It was cut off.
    Unknown,
    /// The image is there, unpacked.
    Present,
    /// Nothing is there.
    Absent,
}

/// What all clients share.
struct Storm {
    address: PathBuf,
    archive: PathBuf,
    over: AtomicBool,
    /// Held for reading during each call, and for writing while it is seen what is there.
    calm: RwLock<()>,
    acknowledged: AtomicU32,
    /// Calls without an answer for long.
    hung: AtomicU32,
}

impl Storm {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn ctr(&self, namespace: &str, words: &[&str]) -> common::Ran {
        let mut command = Command::new("timeout");
        command
            .args(["-s", "QUIT", "25", "ctr", "-a"])
            .arg(&self.address);
        command.args(["--connect-timeout", "2s", "-n", namespace]);
        let ran = run(command.args(words));
        if ran.stderr.contains("goroutine") {
            // No answer is none: on a machine that is busy enough everything takes its time.
            self.hung.fetch_add(1, Ordering::Relaxed);
        }
        ran
    }

    /// Does something that is acknowledged or not.
    fn change(&self, namespace: &str, fact: &Mutex<Fact>, words: &[&str], then: Fact) -> bool {
        let _calm = self.calm.read().unwrap();
        if self.is_over() {
            return false;
        }
        *fact.lock().unwrap() = Fact::Unknown;
        let done = self.ctr(namespace, words).code == Some(0);
        if done {
            *fact.lock().unwrap() = then;
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        done
    }
}

const NAME: &str = "example.org/storm:1";

/// A client that imports an image and removes it again, with everything that it brought.
fn importer(storm: &Storm, namespace: &str, fact: &Mutex<Fact>) {
    let archive = storm.archive.to_str().unwrap();
    while !storm.is_over() {
        let import = ["images", "import", archive];
        if !storm.change(namespace, fact, &import, Fact::Present) {
            std::thread::park_timeout(Duration::from_millis(20));
            continue;
        }
        let remove = ["images", "rm", "--sync", NAME];
        if storm.change(namespace, fact, &remove, Fact::Unknown) {
            // Leases of imports that were cut off hold what they brought.
            let leases = storm.ctr(namespace, &["leases", "ls", "-q"]).stdout;
            let all = leases.lines().all(|lease| {
                let delete = ["leases", "rm", "--sync", lease];
                storm.change(namespace, fact, &delete, Fact::Unknown)
            });
            let create = ["leases", "create", "--id", "last"];
            let delete = ["leases", "rm", "--sync", "last"];
            if all && storm.change(namespace, fact, &create, Fact::Unknown) {
                storm.change(namespace, fact, &delete, Fact::Absent);
            }
        }
    }
}

/// Sees that what was acknowledged is there.
#[track_caller]
fn take_stock(storm: &Storm, namespace: &str, fact: Fact, image: &Image) {
    let list = |words: &[&str]| storm.ctr(namespace, words).ok();
    match fact {
        Fact::Unknown => {}
        Fact::Absent => {
            assert_eq!(list(&["images", "ls", "-q"]), "", "{namespace}");
            assert_eq!(list(&["content", "ls", "-q"]), "", "{namespace}");
            let snapshots = list(&["snapshots", "ls"]);
            assert_eq!(snapshots.lines().count(), 1, "{namespace}: {snapshots}");
        }
        Fact::Present => {
            assert_eq!(list(&["images", "ls", "-q"]).trim(), NAME, "{namespace}");
            let blobs = list(&["content", "ls", "-q"]);
            for blob in image.layers.iter().chain([&image.config, &image.manifest]) {
                assert!(blobs.contains(&digest(blob)), "{namespace}: {blobs}");
            }
            let snapshots = list(&["snapshots", "ls"]);
            for number in 0..image.tars.len() {
                let chain = image.chain(number);
                assert!(snapshots.contains(&chain), "{namespace}: {snapshots}");
            }
        }
    }
}

/// One upload: acknowledged offsets only grow. Answers whether it was committed.
async fn upload(peer: &Peer, number: u32, data: &[u8], acknowledged: &mut i64) -> bool {
    let base = WriteContentRequest {
        r#ref: format!("u{number}"),
        total: i64::try_from(data.len()).unwrap(),
        expected: digest(data),
        ..WriteContentRequest::default()
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stat = WriteContentRequest {
        action: WriteAction::Stat.into(),
        ..base.clone()
    };
    if sender.send(stat).await.is_err() {
        return false;
    }
    let opened = peer
        .open::<_, WriteContentResponse>("content.v1.Content/Write", receiver)
        .await;
    let mut answers = match opened {
        Ok(answers) => answers,
        Err(refusal) => return refusal.code() == Code::AlreadyExists,
    };
    let mut at = match answers.message().await {
        Ok(Some(answer)) => answer.offset,
        Ok(None) => return false,
        Err(refusal) => return refusal.code() == Code::AlreadyExists,
    };
    assert!(at >= *acknowledged, "u{number}: {at} of {acknowledged}");
    loop {
        let start = usize::try_from(at).unwrap();
        let end = (start + 100_000).min(data.len());
        let is_last = start == end;
        let message = WriteContentRequest {
            action: if is_last {
                WriteAction::Commit.into()
            } else {
                WriteAction::Write.into()
            },
            offset: at,
            data: data[start..end].to_vec(),
            labels: [("containerd.io/gc.root".to_owned(), "yes".to_owned())].into(),
            ..base.clone()
        };
        if sender.send(message).await.is_err() {
            return false;
        }
        match answers.message().await {
            Ok(Some(_)) if is_last => return true,
            Ok(Some(answer)) => {
                at = answer.offset;
                *acknowledged = at;
            }
            Ok(None) => return false,
            Err(refusal) => return refusal.code() == Code::AlreadyExists,
        }
    }
}

/// A client that uploads blobs, one after the other, until each is committed.
async fn uploader(storm: Arc<Storm>, stored: Arc<Mutex<BTreeSet<String>>>) {
    let mut number = 0;
    while !storm.is_over() {
        number += 1;
        let data = noise(u64::from(number) + 1000, 700_000);
        let mut acknowledged = 0;
        let mut done = false;
        while !done && !storm.is_over() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let Ok(_calm) = storm.calm.try_read() else {
                continue;
            };
            if std::os::unix::net::UnixStream::connect(&storm.address).is_err() {
                continue;
            }
            // It may die between the two: then the task that connects fails, and not the client.
            let address = storm.address.clone();
            let connect = tokio::spawn(async move { Peer::connect(&address, "uploads").await });
            let Ok(peer) = futures_block(connect) else {
                continue;
            };
            done = futures_block(upload(&peer, number, &data, &mut acknowledged));
        }
        if done {
            stored.lock().unwrap().insert(digest(&data));
            storm.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits within a thread of the runtime: the calm is held over it.
fn futures_block<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

/// A moment: its name, and whether it is now.
type Moment<'a> = (&'static str, Box<dyn Fn() -> bool + 'a>);

/// The moments at which the daemon is killed: what must be seen before.
fn moments(root: &Path) -> Vec<Moment<'_>> {
    let snapshots = root.join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    let blobs = content(root).join("blobs/sha256");
    let (of_upload, of_link, of_stage) = (root.to_owned(), blobs.clone(), snapshots.clone());
    let (of_unpack, of_removal) = (snapshots.clone(), snapshots);
    let most = AtomicU32::new(0);
    vec![
        (
            "an upload",
            Box::new(move || uploaded(&of_upload) > 100_000),
        ),
        (
            "a blob before its record",
            Box::new(move || {
                entries(&of_link)
                    .iter()
                    .any(|blob| fs::metadata(blob).is_ok_and(|found| found.nlink() > 1))
            }),
        ),
        (
            "a snapshot before its record",
            Box::new(move || {
                entries(&of_stage).iter().any(|folder| {
                    let name = folder.file_name().unwrap().to_string_lossy();
                    name.starts_with("new-")
                })
            }),
        ),
        (
            "unpacking",
            Box::new(move || {
                entries(&of_unpack).iter().any(|folder| {
                    let many = entries(&folder.join("fs/many")).len();
                    many > 10 && many < 150
                })
            }),
        ),
        (
            "a removal",
            Box::new(move || {
                let now = u32::try_from(entries(&of_removal).len()).unwrap();
                let before = most.fetch_max(now, Ordering::Relaxed);
                now < before
            }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn slow_a_daemon_killed_at_any_moment_loses_and_half_makes_nothing() {
    let is_slow = std::env::var_os("WHERRY_SLOW").is_some();
    let length = Duration::from_secs(if is_slow { 300 } else { 20 });
    // In memory the daemon does not wait for a disk that others use.
    let disk = Disk::new(600 << 10);
    let mut bed = Bed::new(Shims::Ours);
    disk.serve(&mut bed);
    let image = Image::new(
        NAME,
        vec![
            Layer::default().file("etc/base", &noise(1, 500_000)),
            Layer::default().files("many", 2, 200, 3000),
        ],
    );
    let archive = bed.dir.path().join("image.tar");
    image.write(&archive);
    let storm = Arc::new(Storm {
        address: bed.address(),
        archive,
        over: AtomicBool::new(false),
        calm: RwLock::new(()),
        acknowledged: AtomicU32::new(0),
        hung: AtomicU32::new(0),
    });
    let stored = Arc::new(Mutex::new(BTreeSet::new()));
    let facts: Vec<Arc<Mutex<Fact>>> = (0..2)
        .map(|_| Arc::new(Mutex::new(Fact::Unknown)))
        .collect();
    let namespace = |number: usize| format!("storm{number}");
    let mut clients = Vec::new();
    for (number, fact) in facts.iter().enumerate() {
        let (storm, fact, namespace) = (storm.clone(), fact.clone(), namespace(number));
        let client = move || importer(&storm, &namespace, &fact);
        clients.push(std::thread::spawn(client));
    }
    let uploads = tokio::spawn(uploader(storm.clone(), stored.clone()));
    let root = bed.root.clone();
    let moments = moments(&root);
    let began = Instant::now();
    let (mut kills, mut hits, mut before) = (0_usize, BTreeSet::new(), 0);
    // On a machine that is busy enough, for longer: until something has come of it.
    let is_enough = |kills: usize| {
        let stored = stored.lock().unwrap().len();
        kills > 3 && stored > 0 && storm.acknowledged.load(Ordering::Relaxed) > 3
    };
    while began.elapsed() < length || !is_enough(kills) && began.elapsed() < length * 8 {
        // Each moment in its turn, and any other in between.
        let (name, holds) = &moments[(kills / 2) % moments.len()];
        if kills % 2 == 0 {
            if caught(Duration::from_secs(3), holds) {
                hits.insert(*name);
            }
        } else {
            // Something is to be acknowledged in between, or there were nothing to be lost.
            let now = || storm.acknowledged.load(Ordering::Relaxed);
            caught(common::LIMIT, || now() > before);
            before = now();
            let pause = u64::from(noise(kills as u64, 1)[0]) * 3;
            caught(Duration::from_millis(pause), || false);
        }
        bed.kill();
        kills += 1;
        let _calm = storm.calm.write().unwrap();
        is_sound(&bed);
        bed.start();
        for (number, fact) in facts.iter().enumerate() {
            let fact = *fact.lock().unwrap();
            take_stock(&storm, &namespace(number), fact, &image);
        }
        let listed = storm.ctr("uploads", &["content", "ls", "-q"]).ok();
        for blob in &*stored.lock().unwrap() {
            assert!(listed.contains(blob.as_str()), "{blob} is lost");
        }
    }
    storm.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    uploads.await.unwrap();
    let acknowledged = storm.acknowledged.load(Ordering::Relaxed);
    let blobs = stored.lock().unwrap().len();
    let hung = storm.hung.load(Ordering::Relaxed);
    eprintln!(
        "{kills} kills at {hits:?}, {acknowledged} acknowledged, {blobs} blobs uploaded, {hung} hung"
    );
    assert!(is_enough(kills));
    // What the last of them left is brought in order by the daemon itself.
    bed.stop();
    bed.start();
    eventually("the collector is ready", || {
        bed.log().matches("collector ready").count() > 1
    });
    bed.stop();
    let found = run(bed.command().arg("verify"));
    assert_eq!(found.code, Some(0), "{found:?}");
    for left in ["note: blob", "note: folder", "note: upload"] {
        assert!(!found.stdout.contains(left), "{found:?}");
    }
}
