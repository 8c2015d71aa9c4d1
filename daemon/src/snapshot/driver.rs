//! The folders of one snapshotter, `ROOT/io.containerd.snapshotter.v1.NAME/snapshots/NUMBER`, and
//! the mounts that show them. Clients mount these paths themselves, and other programs read them:
//! the shapes are containerd's.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use core_api::snapshots::Kind;
use core_api::types::Mount;
use tonic::Status;

use super::usage::{self, Usage};
use super::{copy, probe, told};
use crate::config::Config;
use crate::store::snapshots::Chain;

/// How trees are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// What differs from the parent, in `fs`; the kernel's overlay puts them together.
    Overlay,
    /// A whole copy each.
    Native,
}

impl Layout {
    /// What clients call the snapshotter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlayfs",
            Self::Native => "native",
        }
    }
}

/// One snapshotter on disk; clones share what is known of it.
#[derive(Debug, Clone)]
pub struct Driver {
    /// How it keeps trees.
    pub layout: Layout,
    root: Arc<Path>,
    /// The start of the temporary names of this process.
    token: Arc<str>,
    ready: Arc<OnceLock<Result<(), String>>>,
}

/// A folder that waits for its number, if the snapshot has one; it is removed when it does not get
/// it.
#[derive(Debug)]
pub struct Staged(Option<PathBuf>);

impl Staged {
    /// Where it is, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = remove(&path)
        {
            log::warn!("{error}");
        }
    }
}

/// Removes a folder of a snapshotter with all that is in it.
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    sys::tree::remove_tree(File::open(parent)?, Path::new(name))
}

/// What temporary names begin with.
pub(super) const STAGED: &str = "new-";

impl Driver {
    /// The snapshotter below the daemon's folder, or in the one that the configuration names.
    pub fn new(layout: Layout, config: &Config) -> Self {
        let below = || format!("io.containerd.snapshotter.v1.{}", layout.name());
        let root = match config.snapshotter_roots.get(layout.name()) {
            Some(own) => own.clone(),
            None => config.root.join(below()),
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            layout,
            root: root.into(),
            token: format!("{STAGED}{}-{:x}-", std::process::id(), now.as_nanos()).into(),
            ready: Arc::default(),
        }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it was ever used.
    pub fn exists(&self) -> bool {
        self.snapshots().is_dir()
    }

    /// Makes its folders at the first use, and finds out whether it can work here.
    ///
    /// # Errors
    /// Why not, and what to do about it.
    pub fn ready(&self) -> Result<(), &str> {
        let made = self.ready.get_or_init(|| {
            let made = self.set_up();
            if let Err(reason) = &made {
                log::warn!("snapshotter {}: {reason}", self.layout.name());
            }
            made
        });
        match made {
            Ok(()) => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    fn set_up(&self) -> Result<(), String> {
        let told = |error: io::Error| format!("{}: {error}", self.root.display());
        private_folder(&self.snapshots()).map_err(told)?;
        match self.layout {
            Layout::Overlay => probe::verdict(&probe::facts(&self.root).map_err(told)?),
            Layout::Native => Ok(()),
        }
    }

    /// The folder of all folders.
    pub(super) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The folder with this number.
    pub fn folder(&self, number: u64) -> PathBuf {
        self.snapshots().join(number.to_string())
    }

    /// The number of the snapshot that is written to by writing to `tree`, if it is one of ours.
    pub(super) fn number_of(&self, tree: &Path) -> Option<u64> {
        let mut parts = tree.strip_prefix(self.snapshots()).ok()?.components();
        let number = parts.next()?.as_os_str().to_str()?.parse().ok()?;
        (self.tree(number) == tree).then_some(number)
    }

    /// Whether a temporary name is one of this process.
    pub(super) fn is_own(&self, name: &str) -> bool {
        name.starts_with(&*self.token)
    }

    /// Whether folders may be here that are containerd's: it left its database.
    pub fn is_shared(&self) -> bool {
        self.root.join("metadata.db").exists()
    }

    /// The tree of a snapshot: what it adds to its parents, or all of it.
    pub fn tree(&self, number: u64) -> PathBuf {
        self.tree_in(&self.folder(number))
    }

    /// The tree in a snapshot's folder.
    pub(super) fn tree_in(&self, folder: &Path) -> PathBuf {
        match self.layout {
            Layout::Overlay => folder.join("fs"),
            Layout::Native => folder.to_owned(),
        }
    }

    /// Makes the folder of a snapshot on `parents` under a temporary name.
    pub(super) fn stage(&self, kind: Kind, parents: &[u64]) -> Result<Staged, Status> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        if self.layout == Layout::Native && kind == Kind::View && !parents.is_empty() {
            // It shows its parent's files and has none of its own.
            return Ok(Staged(None));
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = self.snapshots().join(format!("{}{serial}", self.token));
        private_folder(&path).map_err(|error| told(&path, &error))?;
        let staged = Staged(Some(path.clone()));
        self.fill(&path, kind, parents)
            .map_err(|error| told(&path, &error))?;
        Ok(staged)
    }

    fn fill(&self, path: &Path, kind: Kind, parents: &[u64]) -> io::Result<()> {
        match (self.layout, parents.first()) {
            (Layout::Overlay, parent) => {
                let tree = path.join("fs");
                folder(&tree, 0o755)?;
                if kind == Kind::Active {
                    folder(&path.join("work"), 0o711)?;
                }
                if let Some(parent) = parent {
                    let owner = fs::symlink_metadata(self.tree(*parent))?;
                    std::os::unix::fs::lchown(&tree, Some(owner.uid()), Some(owner.gid()))?;
                }
                Ok(())
            }
            (Layout::Native, Some(parent)) if kind == Kind::Active => {
                copy::copy_tree(&self.tree(*parent), path)
            }
            (Layout::Native, _) => fs::set_permissions(path, Permissions::from_mode(0o755)),
        }
    }

    /// Whether a number has no folder: only containerd can have left one.
    pub(super) fn is_free(&self, number: u64) -> bool {
        fs::symlink_metadata(self.folder(number)).is_err()
    }

    /// Makes the folder that the kernel's overlay needs beside the tree of an active snapshot.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make_work(&self, number: u64) -> io::Result<()> {
        folder(&self.folder(number).join("work"), 0o711)
    }

    /// Gives a staged folder its number.
    pub(super) fn place(&self, mut staged: Staged, number: u64) -> Result<(), Status> {
        let to = self.folder(number);
        if let Some(from) = &staged.0 {
            fs::rename(from, &to).map_err(|error| told(&to, &error))?;
            staged.0 = None;
        }
        Ok(())
    }

    /// Puts everything that was written to the snapshot on disk, with one call for all of it.
    pub(super) fn sync(&self, number: u64) -> Result<(), Status> {
        let tree = self.tree(number);
        File::open(&tree)
            .and_then(|folder| Ok(nix::unistd::syncfs(folder)?))
            .map_err(|error| told(&tree, &error))
    }

    /// What the snapshot takes on disk.
    pub fn usage(&self, number: u64) -> Result<Usage, Status> {
        let tree = self.tree(number);
        usage::measure(&tree).map_err(|error| told(&tree, &error))
    }

    /// How a snapshot is mounted.
    pub(super) fn mounts(&self, chain: &Chain) -> Vec<Mount> {
        let Chain { record, parents } = chain;
        let is_view = record.kind() == Kind::View;
        let own = self.tree(record.number);
        let bind = |source: PathBuf, access: &str| Mount {
            r#type: "bind".to_owned(),
            source: source.display().to_string(),
            target: String::new(),
            options: match self.layout {
                Layout::Overlay => [access, "rbind"],
                Layout::Native => ["rbind", access],
            }
            .map(str::to_owned)
            .to_vec(),
        };
        let access = if is_view { "ro" } else { "rw" };
        let mount = match (self.layout, parents.as_slice()) {
            (_, []) => bind(own, access),
            (Layout::Native, [parent, ..]) if is_view => bind(self.tree(*parent), access),
            (Layout::Native, _) => bind(own, access),
            (Layout::Overlay, [parent]) if is_view => bind(self.tree(*parent), access),
            (Layout::Overlay, parents) => {
                let features = probe::features();
                let mut options = Vec::new();
                if features.index {
                    options.push("index=off".to_owned());
                }
                if features.user_xattr {
                    options.push("userxattr".to_owned());
                }
                if !is_view {
                    let work = self.folder(record.number).join("work");
                    options.push(format!("workdir={}", work.display()));
                    options.push(format!("upperdir={}", own.display()));
                }
                let lower: Vec<_> = parents
                    .iter()
                    .map(|parent| self.tree(*parent).display().to_string())
                    .collect();
                options.push(format!("lowerdir={}", lower.join(":")));
                Mount {
                    r#type: "overlay".to_owned(),
                    source: "overlay".to_owned(),
                    target: String::new(),
                    options,
                }
            }
        };
        vec![mount]
    }
}

/// A folder with exactly `mode`, whatever the umask.
fn folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A folder that only the daemon's user may look into, with what leads to it.
fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
