//! A pull from a registry that is held up while the daemon is killed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Background, Bed, LIMIT, Shims, background, eventually, quietly, run};
use crate::disk::Disk;
use crate::image::{Image, Layer, digest, noise};
use crate::{is_sound, uploaded};

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
    let deadline = Instant::now() + LIMIT * 6;
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
