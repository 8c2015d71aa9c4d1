//! Mounts as a client gives them: where a layer is written to, and trees to look at.
//!
//! A layer of an overlay is written straight into its upper folder, with the overlay's own marks,
//! and a bind mount's source is the tree itself: nothing is mounted for either. Anything else is
//! mounted for as long as it takes.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use core_api::types::Mount;

use super::apply::Place;
use super::fault::Fault;
use super::target::Hiding;

/// A tree to read or write; unmounted again when dropped.
#[derive(Debug)]
pub struct Tree {
    /// Where it is.
    pub place: Place,
    mounted: Option<PathBuf>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        let Some(point) = self.mounted.take() else {
            return;
        };
        let unmounted = sys::mount::unmount_recursive(&point);
        // Never recursive: what is still mounted there is not ours to delete.
        if let Err(error) = unmounted.map_err(|error| error.to_string()).and_then(|()| {
            fs::remove_dir(&point).map_err(|error| format!("{}: {error}", point.display()))
        }) {
            log::warn!("{error}");
        }
    }
}

fn plain(root: PathBuf) -> Place {
    Place {
        root,
        lower: Vec::new(),
        hiding: Hiding::Deletion,
    }
}

/// The folder of mount points, made if need be.
fn scratch(folder: &Path) -> Result<PathBuf, Fault> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let point = folder.join(format!("mount-{}-{serial}", std::process::id()));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&point)
        .map_err(|error| Fault::at(&point, error))?;
    Ok(point)
}

/// Unmounts and removes what a killed daemon left in the folder of mount points.
pub fn recover(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        drop(Tree {
            place: plain(entry.path()),
            mounted: Some(entry.path()),
        });
    }
}

/// Where a layer on `mounts` is written to; `folder` has room for mount points.
///
/// # Errors
/// `Layer` for no mounts; what cannot be mounted.
pub fn for_writing(mounts: &[Mount], folder: &Path) -> Result<Tree, Fault> {
    if let [mount] = mounts {
        let place = match mount.r#type.as_str() {
            "overlay" => overlay(&mount.options),
            _ if is_bind(mount, true) => Some(plain(PathBuf::from(&mount.source))),
            _ => None,
        };
        if let Some(place) = place {
            return Ok(Tree {
                place,
                mounted: None,
            });
        }
    }
    mount(mounts, folder)
}

/// The tree that `mounts` show; an empty one for none.
///
/// # Errors
/// What cannot be mounted.
pub fn for_reading(mounts: &[Mount], folder: &Path) -> Result<Tree, Fault> {
    match mounts {
        [] => {
            let point = scratch(folder)?;
            Ok(Tree {
                place: plain(point.clone()),
                mounted: Some(point),
            })
        }
        [one] if is_bind(one, false) => Ok(Tree {
            place: plain(PathBuf::from(&one.source)),
            mounted: None,
        }),
        _ => mount(mounts, folder),
    }
}

fn mount(mounts: &[Mount], folder: &Path) -> Result<Tree, Fault> {
    if mounts.is_empty() {
        return Err(Fault::Layer("no mounts to unpack onto".to_owned()));
    }
    let point = scratch(folder)?;
    let tree = Tree {
        place: plain(point.clone()),
        mounted: Some(point.clone()),
    };
    let mounts: Vec<_> = mounts
        .iter()
        .map(|mount| sys::mount::Mount {
            kind: mount.r#type.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        })
        .collect();
    sys::mount::mount_all(&mounts, &point)
        .map_err(|error| Fault::Io(error.to_string(), error.error))?;
    Ok(tree)
}

/// Whether a mount only shows a folder, and may be written to if that is wanted.
fn is_bind(mount: &Mount, writable: bool) -> bool {
    let has = |name: &str| mount.options.iter().any(|option| option == name);
    let only_known = mount
        .options
        .iter()
        .all(|option| ["bind", "rbind", "rw", "ro"].contains(&option.as_str()));
    (mount.r#type == "bind" || mount.r#type.is_empty())
        && (has("bind") || has("rbind"))
        && only_known
        && mount.target.is_empty()
        && !(writable && has("ro"))
        && Path::new(&mount.source).is_absolute()
}

/// The layer that an overlay writes to, if it has one.
fn overlay(options: &[String]) -> Option<Place> {
    // Marks need devices 0/0 and `trusted.` attributes, or the option that says otherwise.
    let class = if options.iter().any(|option| option == "userxattr") {
        "user."
    } else {
        "trusted."
    };
    let value = |key: &str| options.iter().find_map(|option| option.strip_prefix(key));
    let lower = value("lowerdir=")?;
    // Paths with escaped characters are left to the kernel.
    if lower.contains('\\') {
        return None;
    }
    Some(Place {
        root: PathBuf::from(value("upperdir=")?),
        lower: lower.split(':').map(PathBuf::from).collect(),
        hiding: Hiding::Overlay(class),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount_of(kind: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: kind.into(),
            source: "/source".into(),
            target: String::new(),
            options: options.iter().map(|&option| option.into()).collect(),
        }
    }

    #[test]
    fn a_layer_is_written_where_the_mount_would_write_it() {
        let folder = Path::new("/proc/nonexistent");
        let place = |mount| for_writing(&[mount], folder).map(|tree| tree.place.clone());
        let upper = ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b"];
        let found = place(mount_of("overlay", &upper)).unwrap();
        assert_eq!(found.root, Path::new("/u"));
        assert_eq!(found.lower, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(found.hiding, Hiding::Overlay("trusted."));
        let found = place(mount_of("bind", &["rw", "rbind"])).unwrap();
        assert_eq!(found, plain("/source".into()));
        // These have to be mounted, which cannot be done there.
        place(mount_of("bind", &["ro", "rbind"])).unwrap_err();
        place(mount_of("overlay", &["lowerdir=/a:/b"])).unwrap_err();
        for_writing(&[], folder).unwrap_err();
    }
}
