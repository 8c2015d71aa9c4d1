//! Which shim binaries are under test, and how they are exchanged on a live node.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The binaries a folder of shims must hold.
pub(super) const BINARIES: [&str; 2] = ["containerd-shim-runc-v1", "containerd-shim-runc-v2"];

/// The folder of the shims under test: `SHIM_DIR`, or the release folder of this workspace.
///
/// # Panics
///
/// When the folder lacks one of the two shims; the message says what to do.
#[must_use]
pub fn shim_dir() -> PathBuf {
    checked(
        "SHIM_DIR",
        std::env::var_os("SHIM_DIR").map_or_else(release_dir, PathBuf::from),
    )
}

/// The folder of the Go shims that the swap tests exchange ours with: `SHIM_OTHER_DIR`, or `/usr/bin`.
///
/// # Panics
///
/// When the folder lacks one of the two shims.
#[must_use]
pub fn other_dir() -> PathBuf {
    let dir = std::env::var_os("SHIM_OTHER_DIR").map_or_else(|| "/usr/bin".into(), PathBuf::from);
    checked("SHIM_OTHER_DIR", dir)
}

/// Whether long tests are to be shortened: `WHERRY_QUICK` is set and not empty.
#[must_use]
pub fn quick() -> bool {
    std::env::var_os("WHERRY_QUICK").is_some_and(|value| !value.is_empty())
}

/// Whether the shims in `dir` are Go's: a Go linker leaves this mark in every binary. A few tests
/// expect of ours what the Go shims are known not to do, and say so by asking this.
#[must_use]
pub fn are_go_shims(dir: &Path) -> bool {
    let mark = b"Go buildinf:";
    let binary = fs::read(dir.join("containerd-shim-runc-v2")).unwrap_or_default();
    binary.windows(mark.len()).any(|window| window == mark)
}

fn release_dir() -> PathBuf {
    target_dir().join(host_triple()).join("release")
}

/// Where cargo builds, and the Makefile keeps the tools it fetched.
pub(super) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

/// The target triple of a Linux build with glibc on this kind of processor.
fn host_triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn checked(variable: &str, dir: PathBuf) -> PathBuf {
    for name in BINARIES {
        assert!(
            dir.join(name).is_file(),
            "{} does not exist: run `make build`, or name a folder of shims in {variable}",
            dir.join(name).display()
        );
    }
    dir.canonicalize().unwrap_or(dir)
}

/// A folder of shims whose binaries are replaced under a running containerd, the way a package
/// upgrade does it: the new file is written beside the old one and renamed over it.
pub struct SwapDir {
    dir: TempDir,
}

impl SwapDir {
    /// A new folder that holds copies of the shims in `from`.
    ///
    /// # Panics
    ///
    /// When the folder or the copies cannot be made.
    #[must_use]
    pub fn new(from: &Path) -> SwapDir {
        let dir = tempfile::Builder::new()
            .prefix("wherry-shims.")
            .tempdir()
            .unwrap_or_else(|error| panic!("cannot make a folder for shims: {error}"));
        let swap = SwapDir { dir };
        swap.replace_with(from);
        swap
    }

    /// The folder, for PATH.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Puts the shims of `from` in place of those that are there. Running shims keep their old
    /// binary, every later `start` and `delete` runs the new one.
    ///
    /// # Panics
    ///
    /// When a copy or a rename fails.
    pub fn replace_with(&self, from: &Path) {
        for name in BINARIES {
            let (source, new, place) = (
                from.join(name),
                self.path().join(format!(".{name}.new")),
                self.path().join(name),
            );
            fs::copy(&source, &new)
                .and_then(|_| fs::rename(&new, &place))
                .unwrap_or_else(|error| {
                    panic!(
                        "cannot put {} at {}: {error}",
                        source.display(),
                        place.display()
                    )
                });
        }
    }
}
