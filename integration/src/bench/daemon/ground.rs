//! Filesystems for the folders of daemons, made for a few measurements and thrown away whole.
//!
//! ext4 does not give out an inode number that was freed in the last minutes, and looks at each of
//! those first: on a disk where an image was just removed, making a file takes ten times as long,
//! whichever daemon makes it. And a sync writes what everybody else has written to the disk. So
//! each round of images has a filesystem of its own. What a daemon has in /run, where bundles come
//! and go, is in memory, as /run is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::e2e::{command, run};

/// How large the filesystem is, in bytes; what is not written takes no room.
const SIZE: u64 = 6 << 30;
/// What mount(8) is told for one in memory.
const MEMORY: [&str; 3] = ["-t", "tmpfs", "none"];

/// A filesystem; it is unmounted and removed when dropped, whatever is on it.
pub(super) struct Ground {
    root: PathBuf,
    is_mounted: bool,
    /// What it is mounted in, if that is to go with it.
    _folder: Option<TempDir>,
}

impl Ground {
    /// An empty ext4 in a file, with its blocks written past the cache of that file. Where there are
    /// no loop devices it is a folder, and that is said.
    pub(super) fn disk() -> Self {
        let ground = Self::folder();
        let file = ground.root.with_file_name("disk");
        let sized = File::create(&file).and_then(|file| file.set_len(SIZE));
        sized.expect("make a file for a filesystem");
        let later = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        let mut make = command("/sbin/mkfs.ext4", ["-q", "-F", "-E", later]);
        make.arg(&file);
        let device = answer(make).and_then(|_| {
            let attach = |flags: &[&str]| {
                let mut losetup = command("/sbin/losetup", ["--find", "--show"]);
                losetup.args(flags).arg(&file);
                answer(losetup)
            };
            attach(&["--direct-io=on"]).or_else(|_| attach(&[]))
        });
        match device {
            Ok(device) => {
                // The kernel would go on preparing it in the background.
                let ground = ground.mounted(&["-t", "ext4", "-o", "noinit_itable", &device]);
                // From now on it goes when the filesystem is unmounted.
                let _ = answer(command("/sbin/losetup", ["--detach", &device]));
                ground
            }
            Err(why) => {
                eprintln!("   no filesystem of its own for each round: {why}");
                ground
            }
        }
    }

    /// An empty filesystem in memory, for what takes long to set up where each write waits for a disk.
    pub(super) fn memory() -> Self {
        Self::folder().mounted(&MEMORY)
    }

    /// The same at this path, whose folder stays.
    pub(super) fn memory_at(root: &Path) -> Self {
        std::fs::create_dir(root).expect("a mount point");
        let ground = Self {
            root: root.to_owned(),
            is_mounted: false,
            _folder: None,
        };
        ground.mounted(&MEMORY)
    }

    fn folder() -> Self {
        let folder = tempfile::Builder::new().prefix("wherry-bench.").tempdir();
        let folder = folder.expect("a folder for a filesystem");
        let root = folder.path().join("m");
        std::fs::create_dir(&root).expect("a mount point");
        Self {
            root,
            is_mounted: false,
            _folder: Some(folder),
        }
    }

    fn mounted(mut self, what: &[&str]) -> Self {
        let mut mount = command("mount", what);
        mount.arg(&self.root);
        match answer(mount) {
            Ok(_) => self.is_mounted = true,
            Err(why) => eprintln!("   no filesystem of its own: {why}"),
        }
        self
    }

    /// Its root folder.
    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// Writes everything on it to disk, so that who is timed next does not wait for it.
    pub(super) fn settle(&self) {
        let root = File::open(&self.root).expect("open the filesystem");
        nix::unistd::syncfs(root).expect("sync the filesystem");
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.is_mounted {
            // Detached: the last of a daemon may still hold it for a moment.
            let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        }
    }
}

/// What a command has printed, or why it failed.
fn answer(command: Command) -> Result<String, String> {
    let output = run(command);
    match output.code {
        0 => Ok(output.line().to_owned()),
        _ => Err(output.to_string()),
    }
}

/// Reads a file, so that it is in memory for whoever is timed next.
pub(super) fn warm(path: &Path) {
    let mut file = File::open(path).expect("open a file");
    std::io::copy(&mut file, &mut std::io::sink()).expect("read a file");
}
