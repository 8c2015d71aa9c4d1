//! Clients that import, remove and upload, and a daemon that is killed at chosen moments.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use core_api::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use tonic::Code;

use crate::api::Peer;
use crate::common::{Bed, LIMIT, Ran, Shims, eventually, run};
use crate::disk::Disk;
use crate::image::{Image, Layer, digest, noise};
use crate::{caught, content, entries, is_sound, uploaded};

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

    fn ctr(&self, namespace: &str, words: &[&str]) -> Ran {
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
            caught(LIMIT, || now() > before);
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
