//! What an engine and its shims leave on the machine: found, told apart from everything that is
//! not the test's own, and removed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::image::hex;
use super::mounts;
use super::shims::are_go_shims;
use super::wait::{LONG, SHORT, until, until_ok};

/// Where shims put their sockets, whatever the state folder of their containerd is.
const SOCKETS: &str = "/run/containerd/s";

/// Where runc keeps its state unless told otherwise, one folder per containerd namespace.
const RUNC_STATE: &str = "/run/containerd/runc";

/// A running shim.
#[derive(Debug, Clone)]
pub struct Shim {
    /// Its process id.
    pub pid: i32,
    /// The value of its `-id` flag: the id of the container it was started for.
    pub id: String,
    /// The binary it runs, without the mark of a binary that was replaced meanwhile.
    pub exe: PathBuf,
}

/// Everything that belongs to one containerd of a test: its folder, its socket, its namespace
/// (which is also the name of the cgroup above all its containers) and the ids it was given.
pub struct Footprint {
    pub(super) folder: PathBuf,
    pub(super) address: PathBuf,
    pub(crate) namespace: String,
    daemons: Mutex<BTreeSet<i32>>,
    ids: Mutex<BTreeSet<String>>,
    baseline: Mutex<Vec<PathBuf>>,
}

impl Footprint {
    pub(crate) fn new(folder: &Path, address: &Path, namespace: &str) -> Footprint {
        Footprint {
            folder: folder.to_owned(),
            address: address.to_owned(),
            namespace: namespace.to_owned(),
            daemons: Mutex::default(),
            ids: Mutex::default(),
            baseline: Mutex::default(),
        }
    }

    /// Notes the pid of a daemon: its zombies count as left behind.
    pub(crate) fn note_daemon(&self, pid: i32) {
        lock(&self.daemons).insert(pid);
    }

    /// Takes the mounts that exist now as the engine's own.
    pub(super) fn note_baseline(&self) {
        *lock(&self.baseline) = mounts::below(&self.folder);
    }

    /// Notes a container (or group) id, so that the socket of its shim is looked for.
    pub fn note_id(&self, id: &str) {
        lock(&self.ids).insert(id.to_owned());
    }

    /// The shims of this containerd that are alive, `start` and `delete` runs included.
    #[must_use]
    pub fn shims(&self) -> Vec<Shim> {
        let shims: Vec<Shim> = pids().filter_map(|pid| self.shim(pid)).collect();
        for shim in &shims {
            self.note_id(&shim.id);
        }
        shims
    }

    /// The one shim started for container `id`.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one.
    #[must_use]
    pub fn shim_of(&self, id: &str) -> Shim {
        let mut shims = self.shims();
        shims.retain(|shim| shim.id == id);
        assert!(shims.len() == 1, "one shim expected for {id}: {shims:?}");
        shims.remove(0)
    }

    /// A shim is known by the address of our containerd in its arguments.
    fn shim(&self, pid: i32) -> Option<Shim> {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let args: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let flag = |name: &[u8]| {
            let at = args.iter().position(|arg| *arg == name)?;
            args.get(at + 1).copied()
        };
        if flag(b"-address")? != self.address.as_os_str().as_bytes() {
            return None;
        }
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let exe = exe.to_string_lossy();
        Some(Shim {
            pid,
            id: String::from_utf8_lossy(flag(b"-id")?).into_owned(),
            exe: exe.strip_suffix(" (deleted)").unwrap_or(&exe).into(),
        })
    }

    /// The socket of the shim of `id`: the digest of address, namespace and id, joined as a path.
    #[must_use]
    pub fn socket(&self, id: &str) -> PathBuf {
        let name = self.address.join(&self.namespace).join(id);
        Path::new(SOCKETS).join(hex(name.as_os_str().as_bytes()))
    }

    /// The bundle of container `id`.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.bundles().join(id)
    }

    fn bundles(&self) -> PathBuf {
        self.folder
            .join("state/io.containerd.runtime.v2.task")
            .join(&self.namespace)
    }

    /// The processes in cgroups of our containers.
    #[must_use]
    pub fn contained(&self) -> Vec<i32> {
        let inside = format!("/{}/", self.namespace);
        pids()
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cgroup"))
                    .is_ok_and(|groups| groups.lines().any(|line| line.contains(&inside)))
            })
            .collect()
    }

    /// Everything there is of containers and shims right now, one line each.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .shims()
            .iter()
            .map(|shim| format!("{shim:?}"))
            .collect();
        found.extend(
            self.contained()
                .iter()
                .map(|pid| format!("process {pid} in a cgroup of ours")),
        );
        found.extend(
            self.zombies()
                .iter()
                .map(|pid| format!("zombie {pid} of a daemon of ours")),
        );
        let baseline = lock(&self.baseline);
        let mounts = mounts::below(&self.folder);
        let mounts = mounts.iter().filter(|point| !baseline.contains(point));
        found.extend(mounts.map(|point| format!("mount {}", point.display())));
        let runc = [
            Path::new(RUNC_STATE).join(&self.namespace),
            self.folder.join("exec/runtime-runc").join(&self.namespace),
        ];
        let mut folders = folders_in(&self.bundles());
        let states = runc.iter().flat_map(|folder| folders_in(folder));
        // crun keeps this one beside the states of its containers, for all of them.
        folders.extend(states.filter(|folder| !folder.ends_with(".empty-directory")));
        folders.extend(self.cgroups().iter().flat_map(|group| folders_in(group)));
        found.extend(
            folders
                .iter()
                .map(|folder| format!("folder {}", folder.display())),
        );
        let sockets: Vec<PathBuf> = lock(&self.ids).iter().map(|id| self.socket(id)).collect();
        let sockets = sockets.iter().filter(|socket| socket.exists());
        found.extend(sockets.map(|socket| format!("socket {}", socket.display())));
        found
    }

    /// Waits until nothing is left of containers and shims.
    ///
    /// # Panics
    ///
    /// When something still is after [`SHORT`]; the message lists it.
    pub fn assert_clean(&self) {
        until_ok("nothing to be left behind", SHORT, || {
            let traces = self.traces();
            if traces.is_empty() {
                Ok(())
            } else {
                Err(traces.join("\n"))
            }
        });
    }

    /// As [`Footprint::assert_clean`], after a shim was killed whose bundle the shims in `cleaners`
    /// cleaned up. Go's v2 shim leaves the socket of a killed one for ever (containerd #5173 and
    /// #11292), so with those this one trace is let pass.
    ///
    /// # Panics
    ///
    /// When something still is after [`SHORT`]; the message lists it.
    pub fn assert_clean_after_a_crash(&self, cleaners: &Path) {
        let go = are_go_shims(cleaners);
        until_ok("nothing to be left behind", SHORT, || {
            let mut traces = self.traces();
            traces.retain(|trace| !(go && trace.starts_with("socket ")));
            if traces.is_empty() {
                Ok(())
            } else {
                Err(traces.join("\n"))
            }
        });
    }

    fn zombies(&self) -> Vec<i32> {
        let daemons = lock(&self.daemons);
        pids()
            .filter(|pid| {
                // proc(5): "pid (name) state parent ..."; the name may itself contain brackets.
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let mut rest = stat
                    .rsplit(')')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace();
                let zombie = rest.next() == Some("Z");
                let parent = rest.next().and_then(|parent| parent.parse().ok());
                zombie && parent.is_some_and(|parent| daemons.contains(&parent))
            })
            .collect()
    }

    /// Our cgroup in every hierarchy of cgroup v1, and in that of v2, where it exists.
    fn cgroups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let mut groups = folders_in(root);
        groups.push(root.to_owned());
        groups
            .iter()
            .map(|group| group.join(&self.namespace))
            .filter(|group| group.is_dir())
            .collect()
    }

    /// Removes everything of ours from the machine: kills what runs, unmounts, removes cgroups,
    /// sockets and state. The daemons must have ended, so that nothing new appears.
    pub(crate) fn wipe(&self) {
        for group in self.cgroups() {
            thaw_below(&group);
        }
        // A container that starts just now may appear after a first look, so look until quiet.
        let quiet = || {
            let mut pids = self.contained();
            pids.extend(self.shims().iter().map(|shim| shim.pid));
            for pid in &pids {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            pids.is_empty().then_some(())
        };
        if !std::thread::panicking() {
            until("containers and shims to die", LONG, quiet);
        } else {
            // A second panic would abort: give it a bounded number of looks instead.
            let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                until(
                    "containers and shims to die",
                    Duration::from_secs(10),
                    quiet,
                );
            }));
            drop(waited);
        }
        mounts::unmount_below(&self.folder);
        for group in self.cgroups() {
            remove_cgroups(&group);
        }
        let _ = fs::remove_dir_all(Path::new(RUNC_STATE).join(&self.namespace));
        for id in lock(&self.ids).iter() {
            let _ = fs::remove_file(self.socket(id));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

/// A process in a frozen cgroup v1 does not die of SIGKILL.
fn thaw_below(group: &Path) {
    for child in folders_in(group) {
        thaw_below(&child);
    }
    let _ = fs::write(group.join("freezer.state"), "THAWED");
    let _ = fs::write(group.join("cgroup.freeze"), "0");
}

fn remove_cgroups(group: &Path) {
    for child in folders_in(group) {
        remove_cgroups(&child);
    }
    let _ = fs::remove_dir(group);
}
