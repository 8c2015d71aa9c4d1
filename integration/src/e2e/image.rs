//! A root file system and an image with no registry: busybox, written as a tar by our own code.
//!
//! The formats are POSIX ustar (pax(1), "ustar Interchange Format") and the OCI image layout.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::run::run;

/// One entry of the root file system.
enum Entry {
    Folder(u32),
    File(u32, Vec<u8>),
    Link(String),
}

/// The root file system: a static busybox with all its applets, and the folders runc mounts on.
fn entries() -> Vec<(String, Entry)> {
    let busybox = busybox();
    let program = fs::read(&busybox)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", busybox.display()));
    let mut list = Command::new(&busybox);
    list.arg("--list");
    let applets = run(list).ok();

    let mut entries: Vec<(String, Entry)> = ["bin", "dev", "etc", "proc", "root", "run", "sys"]
        .iter()
        .map(|name| ((*name).to_owned(), Entry::Folder(0o755)))
        .collect();
    entries.push(("tmp".to_owned(), Entry::Folder(0o1777)));
    entries.push(("bin/busybox".to_owned(), Entry::File(0o755, program)));
    // busybox lists itself: linked onto itself it could not be executed.
    entries.extend(
        applets
            .stdout
            .split_whitespace()
            .filter(|applet| *applet != "busybox")
            .map(|applet| (format!("bin/{applet}"), Entry::Link("busybox".to_owned()))),
    );
    let passwd = b"root:x:0:0:root:/root:/bin/sh\n".to_vec();
    entries.push(("etc/passwd".to_owned(), Entry::File(0o644, passwd)));
    entries
}

fn busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no busybox: `make deps-test` installs package busybox-static"))
}

/// Writes the root file system into the existing folder `dir`.
///
/// # Panics
///
/// When something cannot be written; the message names the path.
pub fn unpack_rootfs(dir: &Path) {
    for (name, entry) in entries() {
        let path = dir.join(name);
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        match entry {
            Entry::Folder(bits) => fs::create_dir(&path).and_then(|()| mode(bits)),
            Entry::File(bits, content) => fs::write(&path, content).and_then(|()| mode(bits)),
            Entry::Link(target) => symlink(target, &path),
        }
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    }
}

/// The root file system as a tar: what `docker import` takes, and the one layer of the image.
#[must_use]
pub fn layer_tar() -> Vec<u8> {
    let mut tar = Tar::default();
    for (name, entry) in entries() {
        match entry {
            Entry::Folder(mode) => tar.add(&format!("{name}/"), b'5', mode, "", &[]),
            Entry::File(mode, content) => tar.add(&name, b'0', mode, "", &content),
            Entry::Link(target) => tar.add(&name, b'2', 0o777, &target, &[]),
        }
    }
    tar.finish()
}

/// An OCI image layout as a tar, which `ctr images import` takes, with one image called `name`.
pub(super) fn layout_tar(name: &str) -> Vec<u8> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let layer = layer_tar();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        // The layer is not compressed, so its digest is its diff id too.
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({"architecture": architecture, "os": "linux"});
    entry["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});

    let mut tar = Tar::default();
    tar.add(
        "oci-layout",
        b'0',
        0o644,
        "",
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    );
    tar.add("index.json", b'0', 0o644, "", index.to_string().as_bytes());
    for blob in [&layer, &config, &manifest] {
        let path = format!("blobs/{}", digest(blob).replace(':', "/"));
        tar.add(&path, b'0', 0o644, "", blob);
    }
    tar.finish()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// The SHA-256 of `bytes` in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A tar archive that is being written.
#[derive(Default)]
struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    const BLOCK: usize = 512;

    /// Adds one member of the type `kind` (`0` file, `2` symbolic link, `5` folder), owned by
    /// root. Names here are short enough for the 100 bytes of the header's name field.
    fn add(&mut self, name: &str, kind: u8, mode: u32, target: &str, content: &[u8]) {
        assert!(
            name.len() < 100 && target.len() < 100,
            "name too long for a tar: {name}"
        );
        let mut header = [0_u8; Tar::BLOCK];
        let mut put = |at: usize, field: &[u8]| {
            header[at..at + field.len()].copy_from_slice(field);
        };
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000"); // uid
        put(116, b"0000000"); // gid
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, b"00000000000"); // time of modification
        put(148, b"        "); // the checksum counts as spaces while it is computed
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(Tar::BLOCK), 0);
    }

    /// Ends the archive with two empty blocks.
    fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * Tar::BLOCK, 0);
        self.bytes
    }
}
