//! A container's control group, cgroup v1 or v2: its statistics, its OOM kills, killing all that is
//! in it, and its removal. The shim never creates a cgroup or sets a limit: that is the runtime's
//! work.
//!
//! Everything here except [`OomWatch`] reads and writes files of the kernel and may take a while (a
//! statistics file makes the kernel sum up over all processors): call it in a helper thread.
//!
//! A new metric goes into one controller file under `v1/` or `v2/`, with its fixture.

mod files;
mod kernel_log;
mod kill;
mod locate;
mod oom;
mod rdma;
mod systemd;
mod tree;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use protobuf::Message as _;
use protobuf::well_known_types::any::Any;

pub use kernel_log::LogTime;
pub use oom::{OomChange, OomWatch};

/// Where the kernel's cgroups are mounted on every distribution.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// How long [`Cgroup::kill_all`] goes on before it gives up.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long [`Cgroup::remove`] retries a cgroup that is still busy.
const REMOVE_PATIENCE: Duration = Duration::from_secs(1);

/// Which of the kernel's two designs manages the containers of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Hierarchies per controller. A hybrid machine counts as this one.
    V1,
    /// One hierarchy, mounted at `/sys/fs/cgroup` itself.
    V2,
}

impl Version {
    /// That of this machine.
    pub fn of_machine() -> Self {
        locate::version()
    }
}

/// Whether a container is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeState {
    /// It runs.
    Thawed,
    /// It was told to stop, and some of it has not yet.
    Freezing,
    /// All of it stands still.
    Frozen,
}

/// The cgroup of one container in one hierarchy.
#[derive(Debug, Clone)]
struct Hierarchy {
    /// Controller names as in `/proc/PID/cgroup`: `cpu,cpuacct`, `name=systemd`, empty for cgroup2.
    controllers: Box<str>,
    dir: Box<Path>,
    /// The container is in the root of this hierarchy, that is, in no cgroup.
    is_root: bool,
    /// Others than the container are in there: it is the root, or holds this very process. Nothing
    /// may be killed or removed there.
    shared: bool,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }
}

/// One container's cgroup, in all hierarchies.
#[derive(Debug, Clone)]
pub struct Cgroup {
    version: Version,
    hierarchies: Vec<Hierarchy>,
    /// `/proc`, and where the unified hierarchy begins; elsewhere only in tests.
    proc: &'static Path,
    root: Box<Path>,
}

impl Cgroup {
    /// The cgroup that process `pid` is in.
    ///
    /// # Errors
    /// `NotFound` when the process is gone (a zombie has left its v1 cgroups) or has no cgroup of
    /// its own.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        let view = view();
        Ok(Self::new(view.version, locate::of_process(&view, pid)?))
    }

    /// The cgroup at `path`, as `linux.cgroupsPath` of a spec names it for the cgroupfs driver:
    /// absolute, the same in every hierarchy. Hierarchies that do not have it are left out.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it, `InvalidInput` when the path is relative or has `..` in
    /// it.
    pub fn of_path(path: &str) -> io::Result<Self> {
        let view = view();
        Ok(Self::new(view.version, locate::of_path(&view, path)?))
    }

    /// The cgroup that `linux.cgroupsPath` of a spec names: a path for the cgroupfs driver,
    /// `SLICE:PREFIX:NAME` for systemd's. What a runtime makes of an empty or a relative path
    /// depends on the runtime: that is not answered here.
    ///
    /// # Errors
    /// As [`Cgroup::of_path`]; `InvalidInput` also for a systemd unit of another form.
    pub fn of_spec(cgroups_path: &str, systemd: bool) -> io::Result<Self> {
        if !systemd {
            return Self::of_path(cgroups_path);
        }
        let path = systemd::path(cgroups_path).ok_or_else(|| {
            let text = format!("cgroup path {cgroups_path:?} is not SLICE:PREFIX:NAME");
            io::Error::new(ErrorKind::InvalidInput, text)
        })?;
        Self::of_path(&path)
    }

    fn new(version: Version, hierarchies: Vec<Hierarchy>) -> Self {
        let root = Path::new(MOUNT_POINT).into();
        Self {
            version,
            hierarchies,
            proc: Path::new("/proc"),
            root,
        }
    }

    /// v1 or v2.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The container's figures, as the message that containerd's clients decode:
    /// `io.containerd.cgroups.v1.Metrics` or `io.containerd.cgroups.v2.Metrics`. A controller that
    /// the machine does not have leaves its part out.
    ///
    /// # Errors
    /// `NotFound` when the cgroup does not exist any more.
    pub fn stats(&self) -> io::Result<Any> {
        let (type_url, value) = match self.version {
            Version::V1 => (
                v1::TYPE_URL,
                v1::metrics(|name| self.controller(name), self.proc)?.write_to_bytes(),
            ),
            Version::V2 => (
                v2::TYPE_URL,
                v2::metrics(self.unified_dir()?)?.write_to_bytes(),
            ),
        };
        // Asked afterwards: files that went away while we read them would look like absent
        // controllers.
        self.must_exist()?;
        let value = value.map_err(io::Error::other)?;
        Ok(Any {
            type_url: type_url.to_owned(),
            value,
            ..Any::default()
        })
    }

    /// How many processes of the container the kernel's OOM killer has killed. Cheap.
    ///
    /// # Errors
    /// `NotFound` when the cgroup does not exist any more.
    pub fn oom_kills(&self) -> io::Result<u64> {
        match self.version {
            Version::V1 => v1::oom_kills(self.memory_dir()?),
            Version::V2 => v2::oom_kills(self.unified_dir()?),
        }
    }

    /// [`Cgroup::oom_kills`] as the kernel's log tells them, for a cgroup that is gone: those since a
    /// moment before which there was none, with that of process `dead` wherever it was. Some may be
    /// missing, since the log is finite. Takes a few milliseconds.
    ///
    /// # Errors
    /// `PermissionDenied` without the right to read the log.
    pub fn oom_kills_logged(&self, since: LogTime, dead: Option<i32>) -> io::Result<u64> {
        kernel_log::oom_kills(since, self.kernels_path().as_deref(), dead)
    }

    /// What the kernel calls the cgroup that limits memory; `None` where that is not the container's
    /// own, or hidden by the way in which the hierarchies are mounted.
    fn kernels_path(&self) -> Option<String> {
        let below = self.memory_dir().ok()?.strip_prefix(&self.root).ok()?;
        let mut parts = below.iter();
        if self.version == Version::V1 {
            parts.next();
        }
        let path = Path::new("/").join(parts.as_path());
        (path != Path::new("/")).then(|| path.to_str().map(str::to_owned))?
    }

    /// Starts watching for OOM kills. Must be called inside the runtime that will wait.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone or has no memory controller.
    pub fn watch_oom(&self) -> io::Result<OomWatch> {
        OomWatch::new(self.version, self.memory_dir()?)
    }

    /// Every process in the cgroup and below it, in the order of their numbers.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone, `Unsupported` when the container has none that it does
    /// not share with the shim or the whole machine.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let mut found = BTreeSet::new();
        let mut gone = None;
        let mut any = false;
        // A container may move a process within one v1 hierarchy, so all are asked.
        for hierarchy in self.own()? {
            match kill::processes(&hierarchy.dir, &mut found) {
                Ok(()) => any = true,
                Err(error) if error.kind() == ErrorKind::NotFound => gone = Some(error),
                Err(error) => return Err(error),
            }
        }
        match gone {
            Some(error) if !any => Err(error),
            _ => Ok(found.into_iter().collect()),
        }
    }

    /// Whether any process is left; a zombie does not count.
    ///
    /// # Errors
    /// As [`Cgroup::processes`].
    pub fn populated(&self) -> io::Result<bool> {
        match self.version {
            Version::V1 => Ok(!self.processes()?.is_empty()),
            Version::V2 => v2::populated(self.unified_dir()?),
        }
    }

    /// Whether the container is paused; a machine without the freezer has none that are.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone.
    pub fn freeze_state(&self) -> io::Result<FreezeState> {
        match self.version {
            Version::V1 => self
                .controller("freezer")
                .map_or(Ok(FreezeState::Thawed), v1::freeze_state),
            Version::V2 => v2::freeze_state(self.unified_dir()?),
        }
    }

    /// Lets a paused container run on.
    fn thaw(&self) -> io::Result<()> {
        let own = self.own()?;
        match self.version {
            Version::V1 => match own.iter().find(|hierarchy| hierarchy.has("freezer")) {
                Some(freezer) => files::write(&freezer.dir, "freezer.state", "THAWED"),
                None => Ok(()),
            },
            Version::V2 => files::write(self.unified_dir()?, "cgroup.freeze", "0"),
        }
    }

    /// Kills every process in the cgroup and below it, paused or not, and waits until none is left.
    /// Not to be called where the runtime could still be adding processes for us.
    ///
    /// # Errors
    /// `TimedOut` when some survive for ten seconds (in an uninterruptible wait), `Unsupported` as
    /// in [`Cgroup::processes`]; a cgroup that is gone is no error.
    pub fn kill_all(&self) -> io::Result<()> {
        self.own()?;
        kill::kill_all(self, KILL_PATIENCE)
    }

    /// cgroup v2: passes every controller of the root on down to this cgroup. On v1 there is
    /// nothing to do.
    ///
    /// # Errors
    /// When the parent of the cgroup refuses for a reason other than rights or being busy.
    pub fn enable_controllers(&self) -> io::Result<()> {
        match self.version {
            Version::V1 => Ok(()),
            Version::V2 => v2::controllers::enable(&self.root, self.unified_dir()?),
        }
    }

    /// Removes the cgroup and those below it from every hierarchy. What is gone already is no
    /// error.
    ///
    /// # Errors
    /// `ResourceBusy` when processes are still in it after a second, `Unsupported` as in
    /// [`Cgroup::processes`]. The first error is returned after all hierarchies were tried.
    pub fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + REMOVE_PATIENCE;
        let mut result = Ok(());
        for hierarchy in self.own()? {
            // Every hierarchy is tried, whatever became of the one before.
            let removed = tree::remove(&hierarchy.dir, deadline);
            result = result.and(removed);
        }
        result
    }

    /// The hierarchies in which the container is alone.
    fn own(&self) -> io::Result<Vec<&Hierarchy>> {
        let own: Vec<&Hierarchy> = self.hierarchies.iter().filter(|one| !one.shared).collect();
        if own.is_empty() {
            let text = format!("{}: the container has no cgroup of its own", self.name());
            return Err(io::Error::new(ErrorKind::Unsupported, text));
        }
        Ok(own)
    }

    fn controller(&self, name: &str) -> Option<&Path> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.has(name))
            .map(|hierarchy| &*hierarchy.dir)
    }

    fn unified_dir(&self) -> io::Result<&Path> {
        self.controller("").ok_or_else(|| self.missing("cgroup2"))
    }

    /// Where the memory controller's files are.
    fn memory_dir(&self) -> io::Result<&Path> {
        match self.version {
            Version::V1 => self
                .controller("memory")
                .ok_or_else(|| self.missing("memory controller")),
            Version::V2 => self.unified_dir(),
        }
    }

    fn missing(&self, what: &str) -> io::Error {
        io::Error::new(ErrorKind::NotFound, format!("{}: no {what}", self.name()))
    }

    fn must_exist(&self) -> io::Result<()> {
        if self
            .hierarchies
            .iter()
            .any(|hierarchy| !hierarchy.is_root && hierarchy.dir.exists())
        {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::NotFound,
            format!("{}: the cgroup is gone", self.name()),
        ))
    }

    /// A path for messages.
    fn name(&self) -> std::path::Display<'_> {
        let first = self
            .hierarchies
            .iter()
            .find(|one| !one.is_root)
            .or_else(|| self.hierarchies.first());
        first
            .map_or(&*self.root, |hierarchy| &*hierarchy.dir)
            .display()
    }
}

fn view() -> locate::View<'static> {
    locate::View {
        proc: Path::new("/proc"),
        cgroup: Path::new(MOUNT_POINT),
        version: locate::version(),
    }
}
