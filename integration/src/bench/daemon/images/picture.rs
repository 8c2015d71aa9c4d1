//! The image that is imported and pulled: 10 layers that hold 300 MB of files, the size that tools
//! show of an image. The same bytes in every run.
//!
//! Layers are like those of distributions: many small files and few large ones, half of them text
//! and half programs, which gzip packs to about half. Formats are POSIX ustar and the OCI layout.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::chance::Chance;
use crate::e2e::{command, run};

use super::super::super::hands;

/// What the image is called.
pub(super) const NAME: &str = "bench.invalid/picture:1";

const LAYERS: usize = 10;
/// Bytes of each layer, before compression.
const LAYER: usize = 30_000_000;
/// Bytes of the largest file.
const LARGEST: u64 = 4 << 20;
/// How many files one folder has.
const TOGETHER: usize = 30;
/// Bytes that contents are cut from.
const POOL: usize = 4 << 20;

const BLOCK: usize = 512;

/// Writes the image as an OCI layout in a tar into `folder` and answers where it is.
pub(super) fn make(folder: &Path) -> PathBuf {
    let pools = [text(), program()];
    let mut layers = hands::share(0..LAYERS, |number| {
        let tar = layer(number, &pools);
        let packed = pack(&tar, &folder.join(format!("layer-{number}.tar")));
        (number, digest(&tar), packed)
    });
    layers.sort_by_key(|(number, ..)| *number);
    let path = folder.join("picture.tar");
    let mut out = File::create(&path).expect("make the image");
    let mut put = |name: &str, bytes: &[u8]| {
        let mut entry = Vec::new();
        add(&mut entry, name, b'0', bytes);
        out.write_all(&entry).expect("write the image");
    };
    let mut blob = |kind: &str, bytes: &[u8]| {
        let digest = digest(bytes);
        put(&format!("blobs/{}", digest.replace(':', "/")), bytes);
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let packed: Vec<Value> = layers
        .iter()
        .map(|(_, _, packed)| blob("layer.v1.tar+gzip", packed))
        .collect();
    let contents: Vec<&str> = layers.iter().map(|(_, content, _)| &**content).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": contents},
    });
    let config = blob("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": packed,
    });
    let mut entry = blob("manifest.v1+json", manifest.to_string().as_bytes());
    entry["annotations"] = json!({"io.containerd.image.name": NAME});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    put("index.json", index.to_string().as_bytes());
    out.write_all(&[0; 2 * BLOCK]).expect("end the image");
    path
}

/// One layer as a tar of exactly its size.
fn layer(number: usize, pools: &[Vec<u8>; 2]) -> Vec<u8> {
    let mut chance = Chance::of(number as u64 + 1);
    let mut tar = Vec::with_capacity(LAYER);
    let end = LAYER - 2 * BLOCK;
    let mut folder = String::new();
    for count in 0.. {
        if count % TOGETHER == 0 {
            folder = format!("usr/lib/layer-{number}/package-{:03}", count / TOGETHER);
            add(&mut tar, &format!("{folder}/"), b'5', &[]);
        }
        let name = format!("{folder}/file-{count:05}");
        if count % 20 == 19 {
            // As libraries have one without their version.
            add(&mut tar, &name, b'2', b"file-00000");
            continue;
        }
        let left = end.saturating_sub(tar.len() + BLOCK);
        if left < BLOCK {
            break;
        }
        let size = usize::try_from(size(&mut chance)).expect("small").min(left);
        let content = cut(&pools[count % 2], size, &mut chance);
        add(&mut tar, &name, b'0', &content);
    }
    tar.resize(LAYER.next_multiple_of(BLOCK), 0);
    tar
}

/// The size of a file: most have few kilobytes, few have megabytes. Half are below 4 KiB, and of
/// those above half again are below twice as much, and so on.
fn size(chance: &mut Chance) -> u64 {
    let mut scale = 4 << 10;
    while scale < LARGEST && chance.below(2) == 0 {
        scale *= 2;
    }
    scale / 8 + chance.below(scale - scale / 8)
}

/// A content of `size` bytes out of pieces of `pool`, each of some kilobytes.
fn cut(pool: &[u8], size: usize, chance: &mut Chance) -> Vec<u8> {
    let mut content = Vec::with_capacity(size);
    while content.len() < size {
        let length = 256 + chance.below(16 << 10);
        let from = chance.below(pool.len() as u64 - length);
        let range = usize::try_from(from).expect("small")..;
        let length = usize::try_from(length).expect("small");
        content.extend(&pool[range][..length.min(size - content.len())]);
    }
    content
}

/// Words of a vocabulary of some thousands, as in prose and in source.
fn text() -> Vec<u8> {
    let mut chance = Chance::of(100);
    let mut word = || -> Vec<u8> {
        let length = 2 + chance.below(10);
        let letter = |_| b'a' + u8::try_from(chance.below(26)).expect("a letter");
        (0..length).map(letter).collect()
    };
    let words: Vec<Vec<u8>> = (0..4000).map(|_| word()).collect();
    let mut pool = Vec::with_capacity(POOL + 16);
    let mut chance = Chance::of(101);
    while pool.len() < POOL {
        let word = chance.below(words.len() as u64);
        pool.extend(&words[usize::try_from(word).expect("small")]);
        pool.push(b' ');
    }
    pool
}

/// What recurs in machine code, with numbers that do not in between.
fn program() -> Vec<u8> {
    const CODE: [&[u8]; 3] = [b"\x48\x8b\x45\xf8", b"\xe8\0\0\0", b"\x0f\x1f\x44\0\0"];
    let mut chance = Chance::of(102);
    let mut pool = Vec::with_capacity(POOL + 64);
    while pool.len() < POOL {
        for _ in 0..2 {
            pool.extend(chance.below(u64::MAX).to_le_bytes());
        }
        pool.resize(pool.len() + 8, 0);
        let code = CODE[usize::try_from(chance.below(3)).expect("small")];
        for _ in 0..=chance.below(4) {
            pool.extend(code);
        }
    }
    pool
}

/// Adds a member of the type `kind` (`0` file, `2` symbolic link, `5` folder); `content` is where a
/// link points to.
fn add(tar: &mut Vec<u8>, name: &str, kind: u8, content: &[u8]) {
    assert!(name.len() < 100, "name too long for a tar: {name}");
    let (link, content) = match kind {
        b'2' => (content, &[][..]),
        _ => (&[][..], content),
    };
    let mode = if kind == b'0' { "0000644" } else { "0000755" };
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, field: &[u8]| {
        header[at..at + field.len()].copy_from_slice(field);
    };
    put(0, name.as_bytes());
    put(100, mode.as_bytes());
    put(108, b"0000000"); // uid
    put(116, b"0000000"); // gid
    put(124, format!("{:011o}", content.len()).as_bytes());
    put(136, b"14524770400"); // some day in 2023
    put(148, b"        "); // the checksum counts as spaces while it is computed
    put(156, &[kind]);
    put(157, link);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

/// Packs `bytes` by `gzip`, without a name and a time; `path` is for a file meanwhile.
fn pack(bytes: &[u8], path: &Path) -> Vec<u8> {
    fs::write(path, bytes).expect("write a layer");
    let mut gzip = command("gzip", ["-n", "-6"]);
    gzip.arg(path);
    let _ = run(gzip).ok();
    let packed = path.with_extension("tar.gz");
    let bytes = fs::read(&packed).expect("read a packed layer");
    fs::remove_file(&packed).expect("remove a packed layer");
    bytes
}

fn digest(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    let hex: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_the_same_each_time_and_has_its_size() {
        let pools = [text(), program()];
        let layer = layer(3, &pools);
        assert_eq!(layer.len(), LAYER.next_multiple_of(BLOCK));
        assert_eq!(digest(&layer), digest(&super::layer(3, &pools)));
        let sizes = layer
            .chunks_exact(BLOCK)
            .filter(|block| block[257..].starts_with(b"ustar"))
            .count();
        assert!((1000..5000).contains(&sizes), "{sizes} members");
    }
}
