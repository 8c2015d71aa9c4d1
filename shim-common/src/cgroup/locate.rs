//! Where the cgroup of a process lies: `/proc/PID/cgroup` says its path in each hierarchy, the
//! mount table says where each hierarchy is mounted (cgroups(7)).

use std::fs;
use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{Hierarchy, Version};

/// Where the kernel is looked at. Tests point it at folders of their own.
pub(super) struct View<'a> {
    /// Normally `/proc`.
    pub(super) proc: &'a Path,
    /// Normally `/sys/fs/cgroup`.
    pub(super) cgroup: &'a Path,
    /// Which layout `cgroup` has.
    pub(super) version: Version,
}

/// The layout of this machine: v2 when `/sys/fs/cgroup` itself is a cgroup2 mount, else v1; a
/// hybrid machine (controllers on v1, cgroup2 beside them) counts as v1.
pub(super) fn version() -> Version {
    let kind = statfs(super::MOUNT_POINT).map(|found| found.filesystem_type());
    if kind == Ok(CGROUP2_SUPER_MAGIC) {
        Version::V2
    } else {
        Version::V1
    }
}

/// One mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// `cpu,cpuacct`, `name=systemd`, or empty for cgroup2.
    controllers: String,
    /// Which cgroup of the hierarchy is seen at the mount point: `/` unless it is a bind mount.
    root: String,
    point: PathBuf,
}

/// The cgroup of `pid` in every hierarchy that is mounted.
///
/// # Errors
/// `NotFound` when the process is gone, is a zombie (which on v1 has lost its cgroups), or lives
/// outside of what our cgroup namespace shows.
pub(super) fn of_process(view: &View<'_>, pid: i32) -> io::Result<Vec<Hierarchy>> {
    let file = view.proc.join(pid.to_string()).join("cgroup");
    let text = fs::read_to_string(&file).map_err(|error| {
        // A process that dies while its file is read gives ESRCH.
        let gone = error.raw_os_error() == Some(libc::ESRCH);
        let kind = if gone {
            ErrorKind::NotFound
        } else {
            error.kind()
        };
        io::Error::new(kind, format!("{}: {error}", file.display()))
    })?;
    let mounts = mounts(view)?;
    let own = own_paths(view);
    let found: Vec<Hierarchy> = text
        .lines()
        .filter_map(membership)
        .filter(|(controllers, _)| view.version == Version::V1 || controllers.is_empty())
        .filter_map(|(controllers, path)| hierarchy(&mounts, &own, controllers, path))
        .collect();
    // A zombie is in the root of every v1 hierarchy, and the root is not the container's: to take
    // it for that would be to kill the node.
    if found.iter().any(|hierarchy| !hierarchy.is_root) {
        return Ok(found);
    }
    Err(io::Error::new(
        ErrorKind::NotFound,
        format!("{}: no cgroup of its own", file.display()),
    ))
}

/// The cgroup called `path` (absolute, as seen at the mount points) in every hierarchy where it
/// exists.
///
/// # Errors
/// `NotFound` when no hierarchy has it, `InvalidInput` for a path with `..` in it.
pub(super) fn of_path(view: &View<'_>, path: &str) -> io::Result<Vec<Hierarchy>> {
    if !is_plain(path) {
        let text = format!("cgroup path {path:?} is not absolute and plain");
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let own = own_paths(view);
    let found: Vec<Hierarchy> = mounts(view)?
        .into_iter()
        .map(|mount| {
            let dir = join(&mount.point, path);
            let is_root = dir == mount.point;
            let shared = is_root || own_in(&own, &mount).is_some_and(|own| covers(path, own));
            Hierarchy {
                controllers: mount.controllers.into(),
                dir: dir.into(),
                is_root,
                shared,
            }
        })
        .filter(|hierarchy| hierarchy.dir.is_dir())
        .collect();
    if found.is_empty() {
        return Err(io::Error::new(
            ErrorKind::NotFound,
            format!("cgroup {path} does not exist"),
        ));
    }
    Ok(found)
}

/// Splits a line of `/proc/PID/cgroup`, `ID:CONTROLLERS:PATH`. A path that went away while the
/// process lives on as a zombie carries a ` (deleted)` mark.
fn membership(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    Some((controllers, path.strip_suffix(" (deleted)").unwrap_or(path)))
}

/// Our own place in each hierarchy; empty when it cannot be read.
fn own_paths(view: &View<'_>) -> Vec<(String, String)> {
    let text = fs::read_to_string(view.proc.join("self/cgroup")).unwrap_or_default();
    text.lines()
        .filter_map(membership)
        .map(|(controllers, path)| (controllers.to_owned(), path.to_owned()))
        .collect()
}

fn hierarchy(
    mounts: &[Mount],
    own: &[(String, String)],
    controllers: &str,
    path: &str,
) -> Option<Hierarchy> {
    let mount = mounts
        .iter()
        .find(|mount| same_controllers(&mount.controllers, controllers))?;
    if !is_plain(path) {
        return None;
    }
    let seen = seen_at(mount, path)?;
    let dir = join(&mount.point, seen);
    let is_root = seen == "/";
    let shared = is_root || own_in(own, mount).is_some_and(|own| covers(seen, own));
    Some(Hierarchy {
        controllers: controllers.into(),
        dir: dir.into(),
        is_root,
        shared,
    })
}

/// A path of `/proc/PID/cgroup` as it is seen below the mount point; `None` when it is not. A bind
/// mount shows a part of the hierarchy.
fn seen_at<'a>(mount: &Mount, path: &'a str) -> Option<&'a str> {
    if mount.root == "/" {
        return Some(path);
    }
    let below = path.strip_prefix(mount.root.as_str())?;
    if below.is_empty() {
        Some("/")
    } else {
        below.starts_with('/').then_some(below)
    }
}

/// Where this process itself is seen below the mount point.
fn own_in<'a>(own: &'a [(String, String)], mount: &Mount) -> Option<&'a str> {
    let (_, path) = own
        .iter()
        .find(|(of, _)| same_controllers(of, &mount.controllers))?;
    seen_at(mount, path)
}

/// Whether the process at `inner` is inside the cgroup `outer`.
fn covers(outer: &str, inner: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An absolute path without `..`: the kernel writes `/../x` for a cgroup outside of our namespace,
/// and a spec may say anything.
fn is_plain(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part != "..")
}

fn join(point: &Path, path: &str) -> PathBuf {
    let below = path.trim_matches('/');
    if below.is_empty() {
        point.to_owned()
    } else {
        point.join(below)
    }
}

/// The mount table lists a hierarchy's controllers in another order than `/proc/PID/cgroup` may.
fn same_controllers(left: &str, right: &str) -> bool {
    if left.is_empty() || right.is_empty() {
        return left == right;
    }
    left.split(',')
        .any(|name| right.split(',').any(|other| name == other))
}

/// The hierarchies in sight. For v2 the standard mount point is all there is; for v1 the mount
/// table is read, line by line since a node may have thousands of mounts.
fn mounts(view: &View<'_>) -> io::Result<Vec<Mount>> {
    if view.version == Version::V2 {
        let point = view.cgroup.to_owned();
        return Ok(vec![Mount {
            controllers: String::new(),
            root: "/".to_owned(),
            point,
        }]);
    }
    let file = view.proc.join("self/mountinfo");
    let context = |error: io::Error| super::files::with_path(&file, &error);
    let mut found: Vec<Mount> = Vec::new();
    let mut reader = BufReader::new(fs::File::open(&file).map_err(context)?);
    let mut line = String::new();
    while reader.read_line(&mut line).map_err(context)? > 0 {
        if let Some(mount) = mount(&line)
            && mount.point.starts_with(view.cgroup)
            && !found
                .iter()
                .any(|known| known.controllers == mount.controllers)
        {
            found.push(mount);
        }
        line.clear();
    }
    Ok(found)
}

/// One line of mountinfo (proc_pid_mountinfo(5)) if it is a cgroup mount. Which controllers a v1
/// mount has stands among its superblock options, beside options that are not controllers.
fn mount(line: &str) -> Option<Mount> {
    const NOT_CONTROLLERS: [&str; 7] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "favordynmods",
    ];
    let (left, right) = line.trim_end().split_once(" - ")?;
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1)?;
    let controllers = match kind {
        "cgroup" => options
            .split(',')
            .filter(|option| !NOT_CONTROLLERS.contains(option))
            .filter(|option| !option.starts_with("release_agent="))
            .collect::<Vec<_>>()
            .join(","),
        "cgroup2" => String::new(),
        _ => return None,
    };
    let mut left = left.split(' ');
    let root = left.nth(3)?.to_owned();
    let point = PathBuf::from(left.next()?);
    Some(Mount {
        controllers,
        root,
        point,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /pod /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
99 31 0:32 / /mnt/other rw,relatime - cgroup cgroup rw,pids
";

    fn proc(own: &str, container: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("self", own), ("7", container)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("cgroup"), text).unwrap();
        }
        fs::write(dir.path().join("self/mountinfo"), MOUNTS).unwrap();
        dir
    }

    fn v1(proc: &Path) -> View<'_> {
        View {
            proc,
            cgroup: Path::new("/sys/fs/cgroup"),
            version: Version::V1,
        }
    }

    #[test]
    fn every_mounted_hierarchy_of_a_v1_process_is_found() {
        let proc = proc(
            "0::/\n",
            "9:name=systemd:/default/c\n8:pids:/default/c\n4:memory:/pod/c\n\
             2:cpuacct,cpu:/default/c\n0::/default/c\n",
        );
        let found = of_process(&v1(proc.path()), 7).unwrap();
        let dirs: Vec<_> = found.iter().map(|h| h.dir.to_str().unwrap()).collect();
        // pids is mounted only in a place that is none of ours; memory is seen from /pod on.
        assert_eq!(
            dirs,
            [
                "/sys/fs/cgroup/systemd/default/c",
                "/sys/fs/cgroup/memory/c",
                "/sys/fs/cgroup/cpu,cpuacct/default/c",
                "/sys/fs/cgroup/unified/default/c",
            ]
        );
        assert!(found.iter().all(|h| !h.shared && !h.is_root));
    }

    #[test]
    fn a_zombie_has_no_cgroup_to_kill() {
        let proc = proc("0::/\n", "9:name=systemd:/\n2:cpuacct,cpu:/\n0::/\n");
        let error = of_process(&v1(proc.path()), 7).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = of_process(&v1(proc.path()), 8).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }

    #[test]
    fn a_cgroup_that_holds_the_shim_is_marked_shared() {
        let proc = proc(
            "9:name=systemd:/pods/a\n2:cpu,cpuacct:/pods/ab\n",
            "9:name=systemd:/pods\n2:cpu,cpuacct:/pods/a\n",
        );
        let found = of_process(&v1(proc.path()), 7).unwrap();
        assert_eq!(
            found.iter().map(|h| h.shared).collect::<Vec<_>>(),
            [true, false]
        );
    }

    #[test]
    fn on_v2_only_the_unified_line_counts_and_nothing_outside_of_the_namespace() {
        let proc = proc("0::/shim\n", "1:name=systemd:/x\n0::/k8s/c\n");
        let view = View {
            version: Version::V2,
            ..v1(proc.path())
        };
        let found = of_process(&view, 7).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(&*found[0].dir, Path::new("/sys/fs/cgroup/k8s/c"));
        fs::write(proc.path().join("7/cgroup"), "0::/../other\n").unwrap();
        assert!(of_process(&view, 7).is_err());
        fs::write(proc.path().join("7/cgroup"), "0::/k8s/c (deleted)\n").unwrap();
        assert_eq!(
            &*of_process(&view, 7).unwrap()[0].dir,
            Path::new("/sys/fs/cgroup/k8s/c")
        );
    }

    #[test]
    fn a_path_is_looked_up_only_where_it_exists() {
        let proc = proc("0::/shim\n", "");
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("c")).unwrap();
        let view = View {
            proc: proc.path(),
            cgroup: root.path(),
            version: Version::V2,
        };
        assert_eq!(
            &*of_path(&view, "/c").unwrap()[0].dir,
            root.path().join("c")
        );
        assert!(of_path(&view, "/").unwrap()[0].is_root);
        assert_eq!(
            of_path(&view, "/d").err().unwrap().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            of_path(&view, "/../c").err().unwrap().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            of_path(&view, "c").err().unwrap().kind(),
            ErrorKind::InvalidInput
        );
    }
}
