//! Real mounts, made as root. Each test has a mount namespace of its own, which ends with its
//! thread: whatever a failing test leaves behind goes with it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::at::Place;
use super::loopdev::LoopDevice;
use super::options::Options;
use super::*;

mod basic;
mod idmap;
mod loops;
mod old_kernel;
mod overlays;
mod unmounting;

/// A folder on a tmpfs of its own in a private mount namespace of this thread.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let dir = TempDir::new().unwrap();
        mount(
            Some("t"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder with a file `name` that says `name`.
    fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("name"), name).unwrap();
        path
    }

    fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    fn mounted(&self) -> Vec<PathBuf> {
        mounts_below(&self.rootfs()).unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = unmount_recursive(self.dir.path());
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn request(kind: &str, source: &Path, target: &str, options: &[&str]) -> Mount {
    Mount {
        kind: kind.to_owned(),
        source: text(source),
        target: target.to_owned(),
        options: options.iter().map(ToString::to_string).collect(),
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn options(words: &[&str]) -> Options {
    Options::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
}

/// Whether the kernel is this one or younger; a part of a test that needs it is skipped, aloud,
/// where it is not.
fn kernel_has(what: &str, since: (u32, u32)) -> bool {
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.trim().parse::<u32>());
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        panic!("odd kernel release {release:?}");
    };
    let has = (major, minor) >= since;
    if !has {
        eprintln!("skipped: {what} needs Linux {}.{}", since.0, since.1);
    }
    has
}

/// The mount table's line of the topmost mount at `path`.
fn table_line(path: &Path) -> String {
    let needle = format!(" {} ", path.display());
    let table = read("/proc/thread-self/mountinfo");
    table
        .lines()
        .rfind(|line| line.contains(&needle))
        .unwrap_or_default()
        .to_owned()
}

fn layers(bed: &Bed, parent: &str, count: usize) -> Vec<String> {
    let layer = |index| {
        let path = bed.folder(&format!("{parent}/{index}/fs"));
        fs::write(path.join(format!("only-in-{index}")), "").unwrap();
        text(&path)
    };
    (0..count).map(layer).collect()
}

fn overlay_words(bed: &Bed, lower: &[String]) -> Vec<String> {
    vec![
        "index=off".to_owned(),
        format!("workdir={}", text(&bed.folder("work"))),
        format!("upperdir={}", text(&bed.folder("upper"))),
        format!("lowerdir={}", lower.join(":")),
        "X-containerd.mkdir.path=/nowhere".to_owned(),
    ]
}
