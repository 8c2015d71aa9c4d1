//! Images made by the test itself: layers of files, a configuration and a manifest, as an archive
//! that `ctr images import` and skopeo take.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be made ends a test"
)]

use std::fs::File;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// The digest of some bytes.
pub fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Bytes that nothing compresses, the same for the same seed.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// A layer that is being made.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    fn add(mut self, path: &str, kind: EntryType, link: Option<&str>, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        let mode = if kind.is_dir() { 0o755 } else { 0o640 };
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_600_000_000);
        match link {
            Some(link) => self.0.append_link(&mut header, path, link),
            None => self.0.append_data(&mut header, path, data),
        }
        .unwrap();
        self
    }

    pub fn file(self, path: &str, data: &[u8]) -> Self {
        self.add(path, EntryType::Regular, None, data)
    }

    pub fn folder(self, path: &str) -> Self {
        self.add(path, EntryType::Directory, None, &[])
    }

    pub fn symlink(self, path: &str, to: &str) -> Self {
        self.add(path, EntryType::Symlink, Some(to), &[])
    }

    pub fn link(self, path: &str, to: &str) -> Self {
        self.add(path, EntryType::Link, Some(to), &[])
    }

    /// So many files of so many bytes each below a folder.
    pub fn files(mut self, folder: &str, seed: u64, count: u64, size: usize) -> Self {
        self = self.folder(folder);
        for n in 0..count {
            let data = noise(seed * 100_000 + n, size);
            self = self.file(&format!("{folder}/f{n}"), &data);
        }
        self
    }

    pub fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An image.
pub struct Image {
    pub name: String,
    /// What is in the layers, not compressed.
    pub tars: Vec<Vec<u8>>,
    /// The layers as they are stored.
    pub layers: Vec<Vec<u8>>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    /// An image of these layers, which are compressed.
    pub fn new(name: &str, layers: Vec<Layer>) -> Self {
        let tars: Vec<Vec<u8>> = layers.into_iter().map(Layer::tar).collect();
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar)).collect();
        let config = serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let part = |kind: &str, data: &[u8]| {
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(data),
                "size": data.len(),
            })
        };
        let parts: Vec<_> = layers
            .iter()
            .map(|layer| part("layer.v1.tar+gzip", layer))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": part("config.v1+json", &config),
            "layers": parts,
        });
        let manifest = manifest.to_string().into_bytes();
        Self {
            name: name.to_owned(),
            tars,
            layers,
            config,
            manifest,
        }
    }

    /// The key of the snapshot that the layers up to `number` make.
    pub fn chain(&self, number: usize) -> String {
        let mut chain = digest(&self.tars[0]);
        for tar in &self.tars[1..=number] {
            chain = digest(format!("{chain} {}", digest(tar)).as_bytes());
        }
        chain
    }

    /// Writes an archive of the OCI layout.
    pub fn write(&self, to: &Path) {
        let mut archive = tar::Builder::new(File::create(to).unwrap());
        let mut add = |path: &str, data: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, data).unwrap();
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&self.manifest),
                "size": self.manifest.len(),
                "annotations": {"io.containerd.image.name": self.name},
            }],
        });
        for data in self.layers.iter().chain([&self.config, &self.manifest]) {
            add(&digest(data).replace("sha256:", "blobs/sha256/"), data);
        }
        add("index.json", index.to_string().as_bytes());
        archive.finish().unwrap();
    }
}
