//! Bundles: the folder that a shim is started in, laid exactly as containerd 1.6 and 1.7 lay it,
//! so that either daemon finds the tasks that the other one left running.
//!
//! Everything here may block (files, mounts) and is called from the blocking pool.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use task_api::bundle;

/// The folder below root and state that containerd keeps the bundles of runtime v2 in.
const PLUGIN: &str = "io.containerd.runtime.v2.task";
/// The link in a bundle to the task's folder on disk.
const WORK: &str = "work";

/// The bundle of one task.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Where it is.
    pub path: PathBuf,
    /// Namespace of the task.
    pub namespace: String,
    /// Id of the task.
    pub id: String,
}

/// What we read of a spec: whether the container's root user is another one on the host.
#[derive(Deserialize)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(default, rename = "gidMappings")]
    gid_mappings: Vec<Mapping>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn make_dirs(path: &Path, mode: u32) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(mode);
    builder.create(path).map_err(|error| named(path, &error))
}

/// The folder of all bundles in the state folder.
pub fn folder(state: &Path) -> PathBuf {
    state.join(PLUGIN)
}

impl Bundle {
    /// The bundle of a task that is already there.
    pub fn existing(state: &Path, namespace: &str, id: &str) -> Self {
        Self {
            path: folder(state).join(namespace).join(id),
            namespace: namespace.to_owned(),
            id: id.to_owned(),
        }
    }

    /// Lays a bundle with `spec` as its `config.json`. On failure nothing is left of it.
    ///
    /// # Errors
    /// The first error, with the path it is about.
    pub fn create(
        root: &Path,
        state: &Path,
        namespace: &str,
        id: &str,
        spec: &[u8],
    ) -> io::Result<Self> {
        let this = Self::existing(state, namespace, id);
        let work = folder(root).join(namespace).join(id);
        let parent = folder(state).join(namespace);
        make_dirs(&parent, 0o711)?;
        make_dirs(&folder(root).join(namespace), 0o711)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder
            .create(&this.path)
            .map_err(|error| named(&this.path, &error))?;
        this.fill(&work, spec).inspect_err(|_| {
            let _ = fs::remove_dir_all(&this.path);
            let _ = fs::remove_dir_all(&work);
        })?;
        Ok(this)
    }

    fn fill(&self, work: &Path, spec: &[u8]) -> io::Result<()> {
        if let Some(gid) = mapped_root_group(spec) {
            // The container's root must be able to enter, as with containerd.
            chown(&self.path, None, Some(gid)).map_err(|error| named(&self.path, &error))?;
            fs::set_permissions(&self.path, Permissions::from_mode(0o710))?;
        }
        make_dirs(&self.path.join(bundle::ROOTFS), 0o711)?;
        // Left by a task of the same id whose removal was cut short.
        if work.exists() {
            fs::remove_dir_all(work).map_err(|error| named(work, &error))?;
        }
        make_dirs(work, 0o711)?;
        let link = self.path.join(WORK);
        symlink(work, &link).map_err(|error| named(&link, &error))?;
        self.write(bundle::CONFIG, spec, 0o644)
    }

    /// Writes one of the bundle's files, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn write(&self, name: &str, contents: &[u8], mode: u32) -> io::Result<()> {
        sys::fs::write_file_atomic(&self.path.join(name), contents, mode)
    }

    /// One of the bundle's small files, `None` when it is not there.
    pub fn read(&self, name: &str) -> Option<String> {
        let bytes = sys::fs::read_file(&self.path.join(name), 64 << 10).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// Takes everything away: mounts on the root, the folder, and the task's folder on disk.
    ///
    /// # Errors
    /// The first error; the root is removed as an empty folder only, so that what is still
    /// mounted there is never emptied.
    pub fn remove(&self) -> io::Result<()> {
        let rootfs = self.path.join(bundle::ROOTFS);
        let work = fs::read_link(self.path.join(WORK));
        if rootfs.exists() {
            sys::mount::unmount_recursive(&rootfs).map_err(io::Error::other)?;
            match fs::remove_dir(&rootfs) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(named(&rootfs, &error));
                }
                _ => {}
            }
        }
        remove_atomically(&self.path)?;
        match work {
            Ok(work) => remove_atomically(&work),
            Err(_) => Ok(()),
        }
    }
}

/// Renames a folder to a hidden name before emptying it: half a bundle under its own name would
/// be taken for a task at the next start.
fn remove_atomically(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let hidden = parent.join(hidden);
    match fs::rename(path, &hidden) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => return fs::remove_dir_all(path).map_err(|error| named(path, &error)),
        Ok(()) => {}
    }
    fs::remove_dir_all(&hidden).map_err(|error| named(&hidden, &error))
}

/// The host's group of the container's root, where that is another one than root's.
fn mapped_root_group(spec: &[u8]) -> Option<u32> {
    let spec: Spec = serde_json::from_slice(spec).ok()?;
    let mappings = spec.linux?.gid_mappings;
    let root = mappings.iter().find(|mapping| mapping.container == 0)?;
    (root.host != 0).then_some(root.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_laid_and_taken_away_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("root"), dir.path().join("state"));
        let bundle = Bundle::create(&root, &state, "ns", "c1", b"{}").unwrap();
        assert!(bundle.path.ends_with("io.containerd.runtime.v2.task/ns/c1"));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(bundle.path.clone()), 0o700);
        assert_eq!(mode(bundle.path.join("config.json")), 0o644);
        assert!(bundle.path.join("work").read_link().unwrap().is_dir());
        Bundle::create(&root, &state, "ns", "c1", b"{}").unwrap_err();
        bundle.remove().unwrap();
        for folder in [folder(&root), folder(&state)] {
            assert_eq!(fs::read_dir(folder.join("ns")).unwrap().count(), 0);
        }
    }

    #[test]
    fn only_a_mapped_root_gets_a_group() {
        let spec = r#"{"linux":{"gidMappings":[{"containerID":0,"hostID":1000,"size":1}]}}"#;
        assert_eq!(mapped_root_group(spec.as_bytes()), Some(1000));
        assert_eq!(mapped_root_group(b"{}"), None);
        assert_eq!(mapped_root_group(b"rubbish"), None);
    }
}
