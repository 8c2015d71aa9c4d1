//! Images that tests make: with the tools that people use, and by hand where no tool makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Bed, run};

/// The digest of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A tar file with these files.
pub fn tarball<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        // As it is said, `..` and all.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A layer with a busybox, a user `app` and something that says which platform it is for.
pub fn busybox_layer(platform: &str) -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("bin/busybox", &busybox);
    add(
        "etc/passwd",
        b"root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n",
    );
    add("etc/group", b"app:x:1001:\nlog:x:7:root,app\n");
    add("platform", platform.as_bytes());
    for applet in "sh cat echo env id ls pwd sleep".split(' ') {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    builder.into_inner().unwrap()
}

/// An OCI layout that is made by hand.
#[derive(Clone)]
pub struct Layout {
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    pub fn new() -> Self {
        let mark = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
        Self {
            files: [("oci-layout".to_owned(), mark)].into(),
        }
    }

    /// Adds a blob; answers its descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let path = format!("blobs/{}", digest.replace(':', "/"));
        self.files.insert(path, bytes.to_vec());
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Adds an image with one layer; answers its descriptor.
    pub fn image(&mut self, architecture: &str, config: &Value, layer: &[u8]) -> Value {
        let config = json!({
            "os": "linux",
            "architecture": architecture,
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", layer);
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        let mut descriptor = self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    }

    /// Adds an index; answers its descriptor.
    pub fn index(&mut self, manifests: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        self.blob(
            "application/vnd.oci.image.index.v1+json",
            index.to_string().as_bytes(),
        )
    }

    /// Names an image, as the only one.
    pub fn name(&mut self, name: &str, mut descriptor: Value) {
        descriptor["annotations"] = json!({ "io.containerd.image.name": name });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        self.files
            .insert("index.json".to_owned(), index.to_string().into_bytes());
    }

    pub fn tar(&self) -> Vec<u8> {
        tarball(
            self.files
                .iter()
                .map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
        )
    }
}

/// A small image, named, for this machine.
pub fn simple(name: &str, config: &Value) -> Layout {
    let mut layout = Layout::new();
    let image = layout.image(architecture(), config, &busybox_layer("here"));
    layout.name(name, image);
    layout
}

/// This machine's, by Go's name.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An OCI layout in a folder, with two layers, by umoci: `latest`.
#[track_caller]
pub fn by_umoci(bed: &Bed) -> String {
    let layout = bed.path("umoci");
    let image = format!("{layout}:latest");
    let bundle = bed.path("bundle");
    run(Command::new("umoci").args(["init", "--layout", &layout])).ok();
    run(Command::new("umoci").args(["new", "--image", &image])).ok();
    let rootfs = Path::new(&bundle).join("rootfs");
    let change = |files: &[(&str, &str)]| {
        run(Command::new("umoci").args(["unpack", "--image", &image, &bundle])).ok();
        for (name, from) in files {
            let to = rootfs.join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
        run(Command::new("umoci").args(["repack", "--image", &image, &bundle])).ok();
        fs::remove_dir_all(&bundle).unwrap();
    };
    change(&[("bin/sh", "/bin/busybox")]);
    change(&[
        ("etc/hostname", "/etc/hostname"),
        ("etc/passwd", "/etc/passwd"),
    ]);
    run(Command::new("umoci").args(["config", "--image", &image, "--config.cmd", "sh"])).ok();
    run(Command::new("umoci").args(["gc", "--layout", &layout])).ok();
    layout
}

/// Packs a folder.
#[track_caller]
pub fn packed(folder: &str, archive: &str) {
    run(Command::new("tar").args(["-C", folder, "-cf", archive, "."])).ok();
}

/// What the daemon holds in the namespace, as `ctr` tells it, times left out.
#[derive(Debug, PartialEq)]
pub struct Holdings {
    pub images: BTreeSet<String>,
    pub blobs: BTreeMap<String, BTreeSet<String>>,
    pub snapshots: BTreeSet<String>,
    pub leases: usize,
}

/// Asks `ctr`.
#[track_caller]
pub fn holdings(bed: &Bed) -> Holdings {
    let lines = |arguments: &[&str]| -> Vec<String> {
        let text = bed.ctr(arguments).ok();
        text.lines().skip(1).map(str::to_owned).collect()
    };
    let squeezed = |line: String| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let blob = |line: String| {
        let digest = line.split_whitespace().next().unwrap().to_owned();
        let labels = line.split_whitespace().last().unwrap();
        (digest, labels.split(',').map(str::to_owned).collect())
    };
    Holdings {
        images: lines(&["images", "ls"]).into_iter().map(squeezed).collect(),
        blobs: lines(&["content", "ls"]).into_iter().map(blob).collect(),
        snapshots: lines(&["snapshots", "ls"])
            .into_iter()
            .map(squeezed)
            .collect(),
        leases: lines(&["leases", "ls"]).len(),
    }
}

/// All images, as they are told to programs.
#[track_caller]
pub fn listed(bed: &Bed) -> Vec<Value> {
    serde_json::from_str(&bed.wherry(&["images", "--format", "json"]).ok()).unwrap()
}

/// Writes a file of the test's own.
pub fn in_file(bed: &Bed, name: &str, bytes: &[u8]) -> String {
    let path = bed.path(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Nothing of an image is there, nor will be.
#[track_caller]
pub fn no_image_is_left(bed: &Bed) {
    assert!(listed(bed).is_empty(), "{:?}", listed(bed));
    bed.wherry(&["prune", "-y"]).ok();
    let left = holdings(bed);
    assert!(
        left.blobs.is_empty() && left.snapshots.is_empty(),
        "{left:?}"
    );
    assert_eq!(left.leases, 0);
}
