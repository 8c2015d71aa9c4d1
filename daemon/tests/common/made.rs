//! Images made by other people's tools.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be made ends a test"
)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::common::run;
use super::registry::forgetful;
use super::rich::{attributes, modern_tree, rich_tree};

/// A tree that can be run, with everything that a layer can have, but for holes: the tools write
/// them as zeros.
pub fn base(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("bin")).unwrap();
    fs::copy("/bin/busybox", at("bin/busybox")).unwrap();
    symlink("busybox", at("bin/sh")).unwrap();
    for name in [
        "partly/one",
        "partly/two",
        "whole/deep/file",
        "opaque/deep/file",
        "opaque/file",
    ] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), name).unwrap();
    }
    rich_tree(root);
    modern_tree(root);
    fs::remove_file(at("sparse")).unwrap();
    attributes(root);
    fs::write(at("bin/ping"), "#!/bin/sh\n").unwrap();
    // cap_net_raw+ep
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let ping = File::open(at("bin/ping")).unwrap();
    sys::xattr::set(&ping, OsStr::new("security.capability"), &capability).unwrap();
    age(root, "2019-05-06 07:08:09.123456789");
}

/// Sets the times of everything below `root` to one of the past, so that they are not those of
/// unpacking.
fn age(root: &Path, time: &str) {
    let mut find = Command::new("find");
    find.arg(root)
        .args(["-exec", "touch", "-h", "-d", time, "{}", "+"]);
    run(&mut find).ok();
}

/// Changes what [`base`] has made: files, folders and names of other kinds in their places, and
/// deletions.
pub fn change(root: &Path) {
    let at = |name: &str| root.join(name);
    for name in ["linked", "partly/one", "char", "relative"] {
        fs::remove_file(at(name)).unwrap();
    }
    fs::remove_dir_all(at("whole")).unwrap();
    fs::remove_dir(at("folder/deep")).unwrap();
    fs::write(at("folder/deep"), "file").unwrap();
    fs::create_dir(at("char")).unwrap();
    symlink("elsewhere", at("relative")).unwrap();
    let mut plain = File::options()
        .append(true)
        .open(at("folder/plain"))
        .unwrap();
    plain.write_all(b"more").unwrap();
    age(&at("folder"), "2020-05-06 07:08:09.123456789");
}

/// The archive of a tree, with all attributes, in `dir`.
pub fn archive(tree: &Path, dir: &Path) -> PathBuf {
    let to = dir.join("tree.tar");
    let mut tar = Command::new("tar");
    tar.args(["--format=pax", "--xattrs", "--xattrs-include=*", "-C"]);
    run(tar.arg(tree).arg("-cf").arg(&to).arg(".")).ok();
    to
}

/// An image of three layers under the tag `one` of a layout in `dir`: [`base`], [`change`], and
/// one with an opaque folder and a whiteout.
pub fn by_umoci(dir: &Path) -> PathBuf {
    let layout = dir.join("layout");
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let image = format!("{}:one", layout.display());
    let umoci = |arguments: &[&str]| run(Command::new("umoci").args(arguments)).ok();
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, &at("bundle")]);
    let root = dir.join("bundle/rootfs");
    base(&root);
    umoci(&[
        "repack",
        "--refresh-bundle",
        "--image",
        &image,
        &at("bundle"),
    ]);
    change(&root);
    umoci(&["repack", "--image", &image, &at("bundle")]);
    let path = ["--config.env", "PATH=/bin", "--config.cmd", "/bin/sh"];
    let mut config = vec!["config", "--image", &image];
    config.extend(path);
    umoci(&config);
    fs::create_dir_all(dir.join("third/opaque")).unwrap();
    fs::write(dir.join("third/opaque/third"), "third").unwrap();
    fs::write(dir.join("third/opaque/.wh..wh..opq"), "").unwrap();
    fs::write(dir.join("third/.wh.fifo"), "").unwrap();
    let third = archive(&dir.join("third"), dir);
    umoci(&[
        "raw",
        "add-layer",
        "--image",
        &image,
        third.to_str().unwrap(),
    ]);
    layout
}

/// `buildah` on a storage of its own.
pub struct Buildah(PathBuf);

impl Buildah {
    pub fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Runs it and answers what it prints, without the end of the line.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let mut buildah = forgetful("buildah");
        buildah
            .arg("--root")
            .arg(self.0.join("storage"))
            .arg("--runroot")
            .arg(self.0.join("run"))
            .args(["--storage-driver", "vfs"])
            .env("HOME", &self.0)
            .env("TMPDIR", &self.0);
        run(buildah.args(arguments)).ok().trim().to_owned()
    }
}

/// A layout whose tag `both` is an index of two platforms, each with one file of its name.
pub fn index(dir: &Path) -> PathBuf {
    let layout = dir.join("index");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let blob = |bytes: &[u8]| {
        let hash = Sha256::digest(bytes);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
        format!(r#""digest":"sha256:{hex}","size":{}"#, bytes.len())
    };
    let prefix = "application/vnd.oci.image";
    let manifests = ["amd64", "arm64"].map(|platform| {
        let tree = dir.join(platform);
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join(platform), platform).unwrap();
        let layer = fs::read(archive(&tree, dir)).unwrap();
        let layer = blob(&layer);
        let diff = layer.split('"').nth(3).unwrap().to_owned();
        let config = blob(
            format!(
                r#"{{"architecture":"{platform}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
            )
            .as_bytes(),
        );
        let manifest = blob(
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{prefix}.manifest.v1+json","config":{{"mediaType":"{prefix}.config.v1+json",{config}}},"layers":[{{"mediaType":"{prefix}.layer.v1.tar",{layer}}}]}}"#
            )
            .as_bytes(),
        );
        format!(
            r#"{{"mediaType":"{prefix}.manifest.v1+json",{manifest},"platform":{{"os":"linux","architecture":"{platform}"}}}}"#
        )
    });
    let index = blob(
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{prefix}.index.v1+json","manifests":[{}]}}"#,
            manifests.join(",")
        )
        .as_bytes(),
    );
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{prefix}.index.v1+json",{index},"annotations":{{"org.opencontainers.image.ref.name":"both"}}}}]}}"#
    );
    fs::write(layout.join("index.json"), top).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    layout
}

/// Bytes that no compression makes fewer.
pub fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut random = File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut random, &mut bytes).unwrap();
    bytes
}
