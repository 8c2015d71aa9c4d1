//! Layers: whatever bytes say, nothing changes outside of the target, what fails leaves an empty
//! target empty, and nothing panics. The first byte chooses how it is unpacked.
#![no_main]

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use parts::diff::apply::{Place, apply, apply_blob};
use parts::diff::media::Reading;
use parts::diff::target::Hiding;

/// Where everything happens: a file system of its own, which `fuzz/run` mounts.
const GUARD: &str = "/run/wherry-fuzz";

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, archive)) = bytes.split_first() else {
        return;
    };
    thread_local!(static BED: RefCell<Bed> = RefCell::new(Bed::new(Path::new(GUARD))));
    BED.with_borrow_mut(|bed| bed.unpack(*choice, archive));
});

struct Bed {
    root: PathBuf,
    blob: File,
    /// What is outside of the target, as it was.
    outside: Vec<String>,
}

impl Bed {
    fn new(root: &Path) -> Self {
        let at = |name: &str| root.join(name);
        assert!(
            root.is_dir(),
            "{GUARD} is not there: run the target by fuzz/run"
        );
        for name in ["target", "lower", "outside"] {
            let _ = fs::remove_dir_all(at(name));
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("outside/secret"), "secret").unwrap();
        fill(&at("lower"));
        Self {
            blob: File::options()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(at("blob"))
                .unwrap(),
            outside: outside(root),
            root: root.to_owned(),
        }
    }

    fn unpack(&mut self, choice: u8, archive: &[u8]) {
        let target = self.root.join("target");
        clear(&target);
        let is_overlay = choice & 1 != 0;
        let is_empty = is_overlay || choice & 2 != 0;
        if !is_empty {
            fill(&target);
        }
        let place = Place {
            root: target.clone(),
            lower: if is_overlay {
                vec![self.root.join("lower")]
            } else {
                Vec::new()
            },
            hiding: if is_overlay {
                Hiding::Overlay("trusted.")
            } else {
                Hiding::Deletion
            },
        };
        let applied = if choice & 4 != 0 {
            self.blob.set_len(0).unwrap();
            self.blob.seek(SeekFrom::Start(0)).unwrap();
            self.blob.write_all(archive).unwrap();
            self.blob.seek(SeekFrom::Start(0)).unwrap();
            apply_blob(
                self.blob.try_clone().unwrap(),
                Reading::Sniff,
                &place,
                1 << 20,
            )
            .map(drop)
        } else if choice & 8 != 0 {
            apply(archive, &place, 1 << 20)
        } else {
            let mut mended = archive.to_vec();
            mend(&mut mended);
            apply(&mended[..], &place, 1 << 20)
        };
        if let Err(fault) = applied {
            // The words for the client.
            assert!(!fault.to_string().is_empty());
            let left = fs::read_dir(&target).unwrap().count();
            assert!(
                !is_empty || left == 0,
                "{left} entries are left of a layer that failed: {fault}"
            );
        }
        assert_eq!(
            outside(&self.root),
            self.outside,
            "something outside of the target changed"
        );
    }
}

/// What a layer finds.
fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("folder/deep")).unwrap();
    fs::write(at("folder/file"), "file").unwrap();
    fs::write(at("a"), "a").unwrap();
    symlink("folder", at("link")).unwrap();
    symlink("../outside", at("out")).unwrap();
}

fn clear(target: &Path) {
    for entry in fs::read_dir(target).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// Everything but what is in the target, and but for the blob's content.
fn outside(root: &Path) -> Vec<String> {
    let mut told = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let owner = (found.mode(), found.uid(), found.gid(), found.nlink());
            let is_target = path.ends_with("target") && folder == root;
            if is_target {
                told.push(format!("{path:?}"));
            } else if path.ends_with("blob") && folder == root {
                told.push(format!("{path:?} {owner:?}"));
            } else {
                let changed = (found.ctime(), found.ctime_nsec());
                told.push(format!("{path:?} {owner:?} {} {changed:?}", found.size()));
                if found.is_dir() {
                    waiting.push(path);
                }
            }
        }
    }
    told.sort();
    told
}

/// Sets the checksum of every block right that may be a header: no mutation would hit it.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
