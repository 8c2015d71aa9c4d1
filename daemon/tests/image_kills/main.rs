//! The daemon is killed under pulls, unpacking, commits and collections: nothing that it has
//! acknowledged is missing, nothing half written is visible, what was cut off goes on at its offset,
//! and `wherryd verify` has nothing to say. 20 s; five minutes with `WHERRY_SLOW=1`. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests run programs, and end where something is not as it must be"
)]

#[path = "../common/api.rs"]
mod api;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/image.rs"]
mod image;

mod cut_off;
mod storm;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Bed, run};

fn content(root: &Path) -> PathBuf {
    root.join("io.containerd.content.v1.content")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// How much there is of the largest upload.
fn uploaded(root: &Path) -> u64 {
    let folders = entries(&content(root).join("ingest"));
    let sizes = folders
        .iter()
        .map(|folder| fs::metadata(folder.join("data")).map_or(0, |data| data.len()));
    sizes.max().unwrap_or(0)
}

/// Waits for `holds` without a pause, for windows that are short; answers whether it came.
fn caught(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// What a stopped root has is as it must be, but for what a killed daemon may leave.
#[track_caller]
fn is_sound(bed: &Bed) {
    let found = run(bed.command().arg("verify"));
    assert_eq!(found.code, Some(0), "{found:?}");
}
