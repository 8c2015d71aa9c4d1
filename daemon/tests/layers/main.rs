//! Layers, unpacked and made: archives of the system's tar in every dialect, hostile archives,
//! broken ones, and trees that come back from their difference. Needs root.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run programs and wait for them"
)]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "what cannot be set up ends a test"
)]

#[path = "../common/rich.rs"]
mod rich;
#[path = "../common/tree.rs"]
mod tree;

mod damage;
mod dialects;
mod difference;
mod hostile;
mod limits;
mod whiteouts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use daemon::diff::apply::Place;
use daemon::diff::target::Hiding;
use proptest::prelude::ProptestConfig;
use tar::{EntryType, Header};
use tempfile::TempDir;

fn plain(root: &Path) -> Place {
    Place {
        root: root.to_owned(),
        lower: Vec::new(),
        hiding: Hiding::Deletion,
    }
}

fn tar(arguments: &[&str], from: &Path, to: &Path) {
    let mut command = Command::new("tar");
    command
        .arg("-C")
        .arg(from)
        .args(arguments)
        .arg("-cf")
        .arg(to)
        .arg(".");
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// One entry of an archive made by hand.
struct Made<'a> {
    name: &'a str,
    kind: EntryType,
    link: &'a str,
    data: &'a [u8],
}

fn entry(name: &str) -> Made<'_> {
    Made {
        name,
        kind: EntryType::Regular,
        link: "",
        data: b"data",
    }
}

fn link<'a>(kind: EntryType, name: &'a str, link: &'a str) -> Made<'a> {
    Made {
        name,
        kind,
        link,
        data: b"",
    }
}

fn archive(entries: &[Made<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for made in entries {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..made.name.len()].copy_from_slice(made.name.as_bytes());
        old.linkname[..made.link.len()].copy_from_slice(made.link.as_bytes());
        header.set_entry_type(made.kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(made.data.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(made.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A folder with a secret outside of the target, which must stay as it is.
fn guarded() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/secret"), "secret").unwrap();
    (dir, target)
}

/// What an overlay of two trees shows.
fn merged(dir: &Path, lower: &Path, upper: &Path) -> tree::Tree {
    let (work, point) = (dir.join("work"), dir.join("merged"));
    fs::create_dir_all(&work).unwrap();
    let mount = sys::mount::Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lower.display()),
        ],
    };
    sys::mount::mount_all(&[mount], &point).unwrap();
    let seen = tree::describe(&point, false);
    sys::mount::unmount_recursive(&point).unwrap();
    seen
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
    }
}
