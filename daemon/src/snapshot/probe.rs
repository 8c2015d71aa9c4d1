//! Whether the kernel's overlay works where the snapshots are, and if not, exactly why.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use sys::mount::{Mount, mount_all, unmount_recursive};

/// What was found out about a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The folder.
    pub folder: String,
    /// Its filesystem's type, `xfs` for instance.
    pub filesystem: String,
    /// Where that filesystem is mounted.
    pub mount_point: String,
    /// What it is on, as the mount table says.
    pub device: String,
    /// Whether folders tell the types of their entries (`d_type`).
    pub has_types: bool,
    /// Why an overlay could not be mounted there; nothing if it could.
    pub refusal: Option<String>,
}

/// Says whether overlays work.
///
/// # Errors
/// Why not, and what to do about it.
pub fn verdict(facts: &Facts) -> Result<(), String> {
    let Facts {
        folder,
        filesystem,
        mount_point,
        device,
        ..
    } = facts;
    let instead = format!(
        "mount a filesystem that can, ext4 or `mkfs.xfs -n ftype=1`, at {folder} (a file on a \
         loop device will do), and restart; until then every namespace's default snapshotter is \
         `native`"
    );
    if !facts.has_types {
        let look = if filesystem == "xfs" {
            format!(
                "`xfs_info {mount_point}` says ftype=0, which cannot be changed without making \
                 the filesystem anew"
            )
        } else {
            format!("{filesystem} was made without it or does not have it")
        };
        return Err(format!(
            "overlays cannot work in {folder}: the {filesystem} on {device} at {mount_point} does \
             not record file types in folders (d_type): {look}; {instead}"
        ));
    }
    if let Some(refusal) = &facts.refusal {
        return Err(format!(
            "overlays cannot work in {folder}, on the {filesystem} at {mount_point}: {refusal}; \
             if the kernel has no overlay, `modprobe overlay` says so; otherwise {instead}"
        ));
    }
    Ok(())
}

/// Finds out about `folder`, which exists, by trying.
///
/// # Errors
/// What cannot be written there.
pub fn facts(folder: &Path) -> io::Result<Facts> {
    let trial = folder.join("check");
    // A killed daemon may have left it mounted.
    unmount_recursive(&trial).map_err(io::Error::other)?;
    let parent = File::open(folder)?;
    sys::tree::remove_tree(&parent, Path::new("check"))?;
    fs::create_dir(&trial)?;
    let found = try_in(folder, &trial);
    unmount_recursive(&trial).map_err(io::Error::other)?;
    sys::tree::remove_tree(&parent, Path::new("check"))?;
    found
}

fn try_in(folder: &Path, trial: &Path) -> io::Result<Facts> {
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| trial.join(name));
    for path in [&lower, &upper, &work, &merged] {
        fs::create_dir(path)?;
    }
    fs::write(lower.join("file"), "")?;
    let overlay = Mount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: vec![
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lower.display()),
        ],
    };
    let refusal = match mount_all(&[overlay], &merged) {
        Ok(()) if merged.join("file").exists() => None,
        Ok(()) => Some("an overlay does not show its lower layer".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    let (filesystem, mount_point, device) = filesystem_of(folder)?;
    Ok(Facts {
        folder: folder.display().to_string(),
        filesystem,
        mount_point,
        device,
        has_types: has_types(&lower)?,
        refusal,
    })
}

/// Whether reading a folder tells the types of its entries.
fn has_types(folder: &Path) -> io::Result<bool> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut folder = Dir::open(folder, flags, Mode::empty())?;
    for entry in folder.iter() {
        if entry?.file_type().is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Type, mount point and device of the filesystem that `path` is on.
fn filesystem_of(path: &Path) -> io::Result<(String, String, String)> {
    let path = path.canonicalize()?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let unknown = || ("filesystem".to_owned(), "?".to_owned(), "?".to_owned());
    let mut best: Option<(String, String, String)> = None;
    for line in table.lines() {
        let mut halves = line.splitn(2, " - ");
        let (Some(left), Some(right)) = (halves.next(), halves.next()) else {
            continue;
        };
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        let mut right = right.split(' ');
        let (Some(kind), Some(device)) = (right.next(), right.next()) else {
            continue;
        };
        let is_longer = best.as_ref().is_none_or(|best| point.len() >= best.1.len());
        if path.starts_with(point) && is_longer {
            best = Some((kind.to_owned(), point.to_owned(), device.to_owned()));
        }
    }
    Ok(best.unwrap_or_else(unknown))
}

/// What the kernel's overlay has and wants here.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// It has the option `index`, which must be off: layers are shared.
    pub index: bool,
    /// In a user namespace it keeps its marks in `user.` attributes.
    pub user_xattr: bool,
}

/// Found out once, after the first overlay was tried.
pub fn features() -> Features {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    *FEATURES.get_or_init(|| Features {
        index: Path::new("/sys/module/overlay/parameters/index").exists(),
        user_xattr: in_user_namespace(),
    })
}

/// Whether the daemon's root is not the host's.
pub fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        let words: Vec<&str> = map.split_whitespace().collect();
        words != ["0", "0", "4294967295"]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xfs() -> Facts {
        Facts {
            folder: "/var/lib/containerd/x".into(),
            filesystem: "xfs".into(),
            mount_point: "/var".into(),
            device: "/dev/sda2".into(),
            has_types: true,
            refusal: None,
        }
    }

    #[test]
    fn an_xfs_without_types_is_named_with_what_to_do() {
        verdict(&xfs()).unwrap();
        let said = verdict(&Facts {
            has_types: false,
            refusal: Some("also".into()),
            ..xfs()
        });
        let said = said.unwrap_err();
        for word in [
            "d_type",
            "xfs_info /var",
            "ftype=0",
            "ftype=1",
            "/dev/sda2",
            "native",
            "loop",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let said = verdict(&Facts {
            refusal: Some("No such device".into()),
            ..xfs()
        });
        assert!(said.unwrap_err().contains("No such device"));
    }

    #[test]
    fn this_machine_is_looked_at_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let facts = facts(dir.path()).unwrap();
        assert!(facts.has_types, "{facts:?}");
        assert_ne!(facts.mount_point, "?");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
