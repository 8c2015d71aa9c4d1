//! A small disk of a test's own, in memory; it goes with the value.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be set up ends a test"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{Bed, run};

pub struct Disk {
    pub path: PathBuf,
    /// Where it is mounted, if nobody else has made the folder.
    _dir: Option<tempfile::TempDir>,
}

impl Disk {
    /// One of so many KiB at `path`.
    pub fn mount(path: &Path, kib: u32) -> Self {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={kib}k,mode=711");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path);
        run(&mut mount).ok();
        Self {
            path: path.to_owned(),
            _dir: None,
        }
    }

    /// One somewhere.
    pub fn new(kib: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("wm").tempdir().unwrap();
        let mut disk = Self::mount(dir.path(), kib);
        disk._dir = Some(dir);
        disk
    }

    /// Lets the daemon of `bed` have its root here.
    pub fn serve(&self, bed: &mut Bed) {
        bed.kill();
        bed.root = self.path.join("root");
        bed.start();
    }

    /// Takes all that is left.
    pub fn fill(&self) {
        let room = fs::File::create(self.path.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while (&room).write(&vec![0; size]).is_ok_and(|count| count > 0) {}
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.path));
    }
}
