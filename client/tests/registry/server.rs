//! A registry of a test's own: Debian's `docker-registry` on a loopback port, filled by `skopeo`
//! with images that `umoci` made.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::{eventually, run};

/// A registry with its storage.
pub struct Server {
    pub dir: tempfile::TempDir,
    pub port: u16,
    child: Child,
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    pub fn new() -> Self {
        Self::with("", "")
    }

    /// One that wants a name and a password: `who` and `secret`.
    pub fn with_password() -> Self {
        // bcrypt of `secret`.
        let line = "who:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
        let auth = "auth: {htpasswd: {realm: test, path: DIR/htpasswd}}";
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("htpasswd"), line).unwrap();
        Self::start(dir, auth, "")
    }

    /// One with more of a configuration, at its top and in its `http`; `DIR` is its folder.
    pub fn with(top: &str, http: &str) -> Self {
        Self::start(tempfile::tempdir().unwrap(), top, http)
    }

    pub fn start(dir: tempfile::TempDir, top: &str, http: &str) -> Self {
        let port = free_port();
        let folder = dir.path().to_str().unwrap();
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: DIR/store}}}}\n\
             {top}\nhttp:\n  addr: 127.0.0.1:{port}\n  secret: test\n{http}\n"
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, text.replace("DIR", folder)).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        // However the test ends, its registry does.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { dir, port, child };
        eventually("the registry listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        server
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts an image of a layout there; answers its digest, as skopeo says it.
    #[track_caller]
    pub fn fill(&self, layout: &Layout, image: &str, name: &str) -> String {
        let from = format!("oci:{}:{image}", layout.path().display());
        let to = format!("docker://{}/{name}", self.host());
        let mut skopeo = skopeo();
        skopeo.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]);
        run(skopeo.args([from, to])).ok();
        self.digest(name)
    }

    /// The digest of an image there, as skopeo says it.
    #[track_caller]
    pub fn digest(&self, name: &str) -> String {
        let mut skopeo = skopeo();
        skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]);
        let image = format!("docker://{}/{name}", self.host());
        run(skopeo.arg(image)).ok().trim().to_owned()
    }

    /// The manifest or index that is there.
    #[track_caller]
    pub fn manifest(&self, name: &str) -> serde_json::Value {
        let mut skopeo = skopeo();
        skopeo.args(["inspect", "--tls-verify=false", "--raw"]);
        let image = format!("docker://{}/{name}", self.host());
        serde_json::from_str(&run(skopeo.arg(image)).ok()).unwrap()
    }

    /// The digest of the largest layer of an image there.
    #[track_caller]
    pub fn large_layer(&self, name: &str) -> String {
        let manifest = self.manifest(name);
        let layers = manifest["layers"].as_array().unwrap();
        let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64());
        largest.unwrap()["digest"].as_str().unwrap().to_owned()
    }

    /// Puts a document under a tag of a repository.
    #[track_caller]
    pub fn put(&self, repository: &str, tag: &str, media_type: &str, body: &str) {
        let head = format!(
            "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            self.host(),
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Puts an index over images there for amd64 and arm64 under `multi:1`; answers its digest.
    #[track_caller]
    pub fn put_index(&self, layout: &Layout) -> String {
        let mut entries = Vec::new();
        for (image, arch) in [("app", "amd64"), ("arm", "arm64")] {
            let name = format!("multi:{arch}");
            let digest = self.fill(layout, image, &name);
            let manifest = run(skopeo()
                .args(["inspect", "--tls-verify=false", "--raw"])
                .arg(format!("docker://{}/{name}", self.host())))
            .ok();
            entries.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": manifest.len(),
                "platform": {"os": "linux", "architecture": arch},
            }));
        }
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "manifests": entries,
        });
        self.put("multi", "1", media_type, &index.to_string());
        self.digest("multi:1")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let from = log.lines().count().saturating_sub(10);
            let end: Vec<&str> = log.lines().skip(from).collect();
            eprintln!("the registry said at last:\n{}", end.join("\n"));
        }
    }
}

pub fn skopeo() -> Command {
    let mut command = Command::new("skopeo");
    command.env_remove("DOCKER_CONFIG");
    command
}

/// An OCI layout with the images `app`, for amd64, and `arm`, for arm64, of the same layers: a
/// busybox, and one with random bytes.
pub struct Layout {
    dir: tempfile::TempDir,
}

impl Layout {
    /// With so many random bytes.
    #[track_caller]
    pub fn new(random: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let umoci = |arguments: &[&str]| {
            let mut command = Command::new("umoci");
            run(command.args(arguments).current_dir(dir.path())).ok();
        };
        umoci(&["init", "--layout", "layout"]);
        umoci(&["new", "--image", "layout:app"]);
        umoci(&["unpack", "--image", "layout:app", "bundle"]);
        let rootfs = dir.path().join("bundle/rootfs");
        fs::create_dir_all(rootfs.join("bin")).unwrap();
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", rootfs.join("bin/sh")).unwrap();
        umoci(&[
            "repack",
            "--refresh-bundle",
            "--image",
            "layout:app",
            "bundle",
        ]);
        let mut bytes = Vec::with_capacity(random);
        let source = fs::File::open("/dev/urandom").unwrap();
        source.take(random as u64).read_to_end(&mut bytes).unwrap();
        fs::write(rootfs.join("random"), bytes).unwrap();
        umoci(&["repack", "--image", "layout:app", "bundle"]);
        umoci(&[
            "config",
            "--image",
            "layout:app",
            "--tag",
            "arm",
            "--architecture",
            "arm64",
        ]);
        Self { dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("layout")
    }
}

/// A folder with a `hosts.toml` for a registry; its text has `PORT`s replaced by the caller.
pub fn hosts_dir(dir: &Path, registry: &str, text: &str) -> String {
    let hosts = dir.join("certs.d");
    let folder = hosts.join(registry);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("hosts.toml"), text).unwrap();
    hosts.to_str().unwrap().to_owned()
}
