//! A registry of a test's own: Debian's `docker-registry` on a loopback port, with its storage in
//! a folder and without TLS; and a proxy to put before it, which writes down what is asked for
//! and can hold answers back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be set up ends a test"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::common::{Background, background, eventually, run};

/// A registry without images.
pub struct Registry {
    pub dir: tempfile::TempDir,
    /// Where it listens: address and port, as references of images begin.
    pub host: String,
    server: Background,
}

/// A program that keeps what it remembers between runs below `/var/lib`, in a mount namespace
/// where that is empty: no test sees what another has left there, and none leaves anything.
pub fn forgetful(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs none /var/lib && exec \"$@\"");
    command.args(["sh", program]);
    command
}

impl Registry {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wg").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: info}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http: {{addr: \"127.0.0.1:0\", secret: none}}\n",
            at("storage")
        );
        fs::write(at("config.yml"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(at("config.yml"))
            .stderr(Stdio::from(log));
        let server = background(&mut command, &at("out"));
        let mut host = None;
        eventually("the registry listens", || {
            let log = fs::read_to_string(at("log")).unwrap_or_default();
            let after = log.split("listening on ").nth(1);
            host = after.and_then(|rest| Some(rest.split_once('"')?.0.to_owned()));
            host.is_some()
        });
        Self {
            host: host.expect("it listens"),
            dir,
            server,
        }
    }

    /// The reference of an image here, from its name and tag.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.host)
    }

    /// Fills it by `skopeo`: `from` is what skopeo calls a transport and a place.
    #[track_caller]
    pub fn fill(&self, from: &str, image: &str, more: &[&str]) {
        let to = format!("docker://{}", self.name(image));
        let mut skopeo = forgetful("skopeo");
        skopeo.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        run(skopeo.args(more).args([from, &to])).ok();
    }

    /// What it has as the manifest of `repository:tag`.
    #[track_caller]
    pub fn manifest(&self, image: &str) -> String {
        let image = format!("docker://{}", self.name(image));
        let mut skopeo = forgetful("skopeo");
        run(skopeo.args(["inspect", "--raw", "--tls-verify=false", &image])).ok()
    }
}

/// One request that went through a [`Proxy`].
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// The header `Range`, as it was sent.
    pub range: Option<String>,
}

/// Stands between a client and a registry, and understands requests without a body: those of
/// pulling.
pub struct Proxy {
    pub host: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    asked: Mutex<Vec<Asked>>,
    /// How many bytes of answers may still pass; `None` for all.
    left: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Proxy {
    pub fn new(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: registry.host.clone(),
            asked: Mutex::default(),
            left: Mutex::default(),
            changed: Condvar::new(),
        });
        let serving = shared.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = serving.clone();
                thread::spawn(move || shared.connection(&client));
            }
        });
        Self { host, shared }
    }

    /// What was asked for since it began.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// From now on only so many bytes of answers pass, and then none.
    pub fn hold_after(&self, bytes: usize) {
        *self.shared.left.lock().unwrap() = Some(bytes);
    }

    /// Whether it holds answers back now.
    pub fn is_holding(&self) -> bool {
        *self.shared.left.lock().unwrap() == Some(0)
    }

    pub fn open(&self) {
        *self.shared.left.lock().unwrap() = None;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn connection(self: Arc<Self>, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(&self.upstream) else {
            return;
        };
        let (answers, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let shared = self.clone();
        thread::spawn(move || {
            shared.answers(&answers, &to);
            let _ = (
                answers.shutdown(Shutdown::Both),
                to.shutdown(Shutdown::Both),
            );
        });
        self.requests(client, &server);
        let _ = server.shutdown(Shutdown::Write);
    }

    fn requests(&self, mut client: &TcpStream, mut server: &TcpStream) {
        let (mut waiting, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count) = client.read(&mut buffer) {
            if count == 0 || server.write_all(&buffer[..count]).is_err() {
                return;
            }
            waiting.extend_from_slice(&buffer[..count]);
            while let Some(end) = waiting.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&waiting[..end]).into_owned();
                waiting.drain(..end + 4);
                self.asked.lock().unwrap().push(Asked::read(&head));
            }
        }
    }

    fn answers(&self, mut server: &TcpStream, mut client: &TcpStream) {
        let mut buffer = [0; 16 << 10];
        while let Ok(count) = server.read(&mut buffer) {
            let mut rest = &buffer[..count];
            if rest.is_empty() {
                return;
            }
            while !rest.is_empty() {
                let (part, more) = rest.split_at(self.allowed(rest.len()));
                if client.write_all(part).is_err() {
                    return;
                }
                rest = more;
            }
        }
    }

    /// Waits until something may pass, and answers how many of `wanted` bytes.
    fn allowed(&self, wanted: usize) -> usize {
        let left = self.left.lock().unwrap();
        let mut left = self
            .changed
            .wait_while(left, |left| *left == Some(0))
            .unwrap();
        match left.as_mut() {
            None => wanted,
            Some(left) => {
                let part = wanted.min(*left);
                *left -= part;
                part
            }
        }
    }
}

impl Asked {
    fn read(head: &str) -> Self {
        let mut lines = head.lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        let mut word = || first.next().unwrap_or_default().to_owned();
        let (method, path) = (word(), word());
        let range = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("range"))
            .map(|(_, value)| value.trim().to_owned());
        Self {
            method,
            path,
            range,
        }
    }

    /// Whether it asks for the bytes of a blob.
    pub fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/")
    }
}
