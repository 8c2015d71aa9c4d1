//! The table of keys: for each one where its value goes, or why it has no effect and what
//! replaces it. The first row that fits a key decides.
//!
//! Keys have the names of version 2 here; [`super::spelling`] has those of the other versions.

use super::Config;
use super::slot::Slot;
use super::spelling::{CRI, LINUX, PLUGINS};

/// Names of levels that may be logged.
pub(super) const LEVELS: &[&str] = &[
    "trace", "debug", "info", "warn", "warning", "error", "fatal", "panic",
];

/// A row: a key, and what is done with its value. `*` stands for any one part of a path, `**` at
/// the end for any rest.
pub(super) struct Key {
    pub(super) path: &'static [&'static str],
    pub(super) rule: Rule,
}

/// What is done with the value of a key.
pub(super) enum Rule {
    /// It goes here and is in force. The parts that `*` and `**` stood for are handed in.
    Force(fn(&mut Config, Vec<String>) -> Slot<'_>),
    /// It goes here, and whoever wrote it is told what it is called now.
    Renamed(fn(&mut Config, Vec<String>) -> Slot<'_>, &'static str),
    /// It is dealt with by whoever reads the file.
    Reader,
    /// It has no effect; what is done instead, and what to do.
    Vain(&'static str, &'static str),
}

use Rule::{Force, Reader, Renamed, Vain};

const fn key(path: &'static [&'static str], rule: Rule) -> Key {
    Key { path, rule }
}

const SCHEDULER: &str = "io.containerd.gc.v1.scheduler";
const TASK: &str = "io.containerd.runtime.v2.task";

const NO_CRI: &str = "the kubelet (CRI) is not served yet";
const DROP: &str = "leave it out; it does no harm";
const BY_CLIENT: &str = "no effect yet on ctr and Docker, who name their runtime themselves";

/// Every key that is known.
pub(super) const KEYS: &[Key] = &[
    key(&["version"], Reader),
    key(&["imports"], Force(|c, _| Slot::List(&mut c.imports))),
    key(&["root"], Force(|c, _| Slot::Path(&mut c.root))),
    key(&["state"], Force(|c, _| Slot::Path(&mut c.state))),
    key(&["temp"], Force(|c, _| Slot::MaybePath(&mut c.temp))),
    key(
        &["oom_score"],
        Force(|c, _| Slot::Bounded(&mut c.oom_score, -1000, 1000)),
    ),
    key(
        &["disabled_plugins"],
        Force(|c, _| Slot::List(&mut c.disabled_plugins)),
    ),
    key(
        &["required_plugins"],
        Force(|c, _| Slot::List(&mut c.required_plugins)),
    ),
    key(
        &["plugin_dir"],
        Vain(
            "plugins are not loaded from files",
            "shims need none: they are found by runtime_type",
        ),
    ),
    key(
        &["grpc", "address"],
        Force(|c, _| Slot::Path(&mut c.address)),
    ),
    key(&["grpc", "uid"], Force(|c, _| Slot::Number(&mut c.uid))),
    key(&["grpc", "gid"], Force(|c, _| Slot::Number(&mut c.gid))),
    key(
        &["grpc", "max_recv_message_size"],
        Force(|c, _| Slot::Bytes(&mut c.max_receive)),
    ),
    key(
        &["grpc", "max_send_message_size"],
        Force(|c, _| Slot::Bytes(&mut c.max_send)),
    ),
    key(&["grpc", "tcp_address"], Vain(NO_TCP, FORWARD)),
    key(&["grpc", "tcp_tls_ca"], Vain(NO_TCP, FORWARD)),
    key(&["grpc", "tcp_tls_cert"], Vain(NO_TCP, FORWARD)),
    key(&["grpc", "tcp_tls_key"], Vain(NO_TCP, FORWARD)),
    key(
        &["ttrpc", "address"],
        Force(|c, _| Slot::MaybePath(&mut c.ttrpc_address)),
    ),
    key(
        &["ttrpc", "uid"],
        Force(|c, _| Slot::Number(&mut c.ttrpc_uid)),
    ),
    key(
        &["ttrpc", "gid"],
        Force(|c, _| Slot::Number(&mut c.ttrpc_gid)),
    ),
    key(
        &["debug", "level"],
        Force(|c, _| Slot::Word(&mut c.log_level, LEVELS)),
    ),
    key(
        &["debug", "format"],
        Force(|c, _| Slot::Word(&mut c.log_format, &["text", "json"])),
    ),
    key(&["debug", "address"], Vain(NO_DEBUG, USR1)),
    key(&["debug", "uid"], Vain(NO_DEBUG, USR1)),
    key(&["debug", "gid"], Vain(NO_DEBUG, USR1)),
    key(
        &["metrics", "address"],
        Force(|c, _| Slot::Text(&mut c.metrics_address)),
    ),
    key(
        &["metrics", "grpc_histogram"],
        Force(|c, _| Slot::Flag(&mut c.grpc_histogram)),
    ),
    key(&["cgroup", "path"], Force(|c, _| Slot::Text(&mut c.cgroup))),
    key(
        &["timeouts", "io.containerd.timeout.shim.load"],
        Force(|c, _| Slot::Span(&mut c.timeouts.load)),
    ),
    key(
        &["timeouts", "io.containerd.timeout.shim.shutdown"],
        Force(|c, _| Slot::Span(&mut c.timeouts.shutdown)),
    ),
    key(
        &["timeouts", "io.containerd.timeout.shim.cleanup"],
        Force(|c, _| Slot::Span(&mut c.timeouts.cleanup)),
    ),
    key(
        &["timeouts", "io.containerd.timeout.task.state"],
        Vain("a shim's state is waited for 2 s", DROP),
    ),
    key(
        &["timeouts", "io.containerd.timeout.bolt.open"],
        Vain(
            "the database is not bolt, and its lock is not waited for",
            DROP,
        ),
    ),
    key(
        &["stream_processors", "**"],
        Vain(
            "layers are not handed to other programs yet",
            "use images that are not encrypted",
        ),
    ),
    key(
        &["proxy_plugins", "**"],
        Vain(
            "plugins in other processes are not supported",
            "use the overlayfs or native snapshotter",
        ),
    ),
    key(
        &[PLUGINS, SCHEDULER, "pause_threshold"],
        Force(|c, _| Slot::Share(&mut c.gc.pause_threshold)),
    ),
    key(
        &[PLUGINS, SCHEDULER, "deletion_threshold"],
        Force(|c, _| Slot::Number(&mut c.gc.deletion_threshold)),
    ),
    key(
        &[PLUGINS, SCHEDULER, "mutation_threshold"],
        Force(|c, _| Slot::Number(&mut c.gc.mutation_threshold)),
    ),
    key(
        &[PLUGINS, SCHEDULER, "schedule_delay"],
        Force(|c, _| Slot::Span(&mut c.gc.schedule_delay)),
    ),
    key(
        &[PLUGINS, SCHEDULER, "startup_delay"],
        Force(|c, _| Slot::Span(&mut c.gc.startup_delay)),
    ),
    key(
        &[
            PLUGINS,
            "io.containerd.metadata.v1.bolt",
            "content_sharing_policy",
        ],
        Force(|c, _| Slot::Word(&mut c.content_sharing_policy, &["shared", "isolated"])),
    ),
    key(
        &[PLUGINS, TASK, "platforms"],
        Force(|c, _| Slot::List(&mut c.platforms)),
    ),
    key(
        &[PLUGINS, TASK, "sched_core"],
        Force(|c, _| Slot::Flag(&mut c.sched_core)),
    ),
    key(
        &[PLUGINS, "io.containerd.service.v1.diff-service", "default"],
        Force(|c, _| Slot::List(&mut c.differs)),
    ),
    key(
        &[PLUGINS, "io.containerd.service.v1.tasks-service", "*"],
        Vain(
            "classes of block I/O and RDT are not set",
            "set them by systemd or resctrl for the container's cgroup",
        ),
    ),
    key(
        &[
            PLUGINS,
            "io.containerd.snapshotter.v1.overlayfs",
            "root_path",
        ],
        Force(|c, _| Slot::Entry(&mut c.snapshotter_roots, "overlayfs".to_owned())),
    ),
    key(
        &[PLUGINS, "io.containerd.snapshotter.v1.native", "root_path"],
        Force(|c, _| Slot::Entry(&mut c.snapshotter_roots, "native".to_owned())),
    ),
    key(
        &[PLUGINS, "io.containerd.snapshotter.v1.overlayfs", "*"],
        Vain("layers are mounted with overlayfs's defaults", DROP),
    ),
    key(
        &[PLUGINS, "io.containerd.snapshotter.v1.aufs", "**"],
        NO_SNAPSHOTTER,
    ),
    key(
        &[PLUGINS, "io.containerd.snapshotter.v1.btrfs", "**"],
        NO_SNAPSHOTTER,
    ),
    key(
        &[PLUGINS, "io.containerd.snapshotter.v1.devmapper", "**"],
        NO_SNAPSHOTTER,
    ),
    key(
        &[PLUGINS, "io.containerd.snapshotter.v1.blockfile", "**"],
        NO_SNAPSHOTTER,
    ),
    key(
        &[PLUGINS, "io.containerd.snapshotter.v1.erofs", "**"],
        NO_SNAPSHOTTER,
    ),
    key(
        &[PLUGINS, "io.containerd.snapshotter.v1.zfs", "**"],
        NO_SNAPSHOTTER,
    ),
    key(
        &[PLUGINS, "io.containerd.internal.v1.restart", "*"],
        Vain(
            "the restart monitor is not there yet",
            "let Docker's restart policies or a systemd unit start containers again",
        ),
    ),
    key(
        &[PLUGINS, "io.containerd.internal.v1.opt", "*"],
        Vain(
            "`ctr install` is not served",
            "put programs into the daemon's PATH, or name them by path",
        ),
    ),
    key(
        &[PLUGINS, "io.containerd.monitor.v1.cgroups", "no_prometheus"],
        Force(|c, _| Slot::Flag(&mut c.no_prometheus)),
    ),
    key(
        &[PLUGINS, LINUX, "runtime"],
        Force(|c, _| Slot::Text(&mut c.legacy_runtime)),
    ),
    key(
        &[PLUGINS, LINUX, "runtime_root"],
        Force(|c, _| Slot::Text(&mut c.legacy_root)),
    ),
    key(
        &[PLUGINS, LINUX, "shim_debug"],
        Force(|c, _| Slot::Flag(&mut c.shim_debug)),
    ),
    key(
        &[PLUGINS, LINUX, "shim"],
        Vain(
            "containers of io.containerd.runtime.v1.linux run under containerd-shim-runc-v2",
            "name another shim by its runtime_type",
        ),
    ),
    key(
        &[PLUGINS, LINUX, "no_shim"],
        Vain(
            "every container has a shim",
            "leave it out: there is no other way",
        ),
    ),
    key(
        &[PLUGINS, CRI, "systemd_cgroup"],
        Renamed(
            |c, _| Slot::Flag(&mut c.cri.systemd_cgroup),
            "write SystemdCgroup into the options of each runtime",
        ),
    ),
    key(
        &[PLUGINS, CRI, "containerd", "no_pivot"],
        Renamed(
            |c, _| Slot::Flag(&mut c.cri.no_pivot),
            "write NoPivotRoot into the options of each runtime",
        ),
    ),
    key(
        &[PLUGINS, CRI, "containerd", "default_runtime_name"],
        Force(|c, _| Slot::Text(&mut c.cri.default_runtime)),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "default_runtime",
            "runtime_type",
        ],
        Renamed(
            |c, _| Slot::Text(&mut c.cri.runtime("default").runtime_type),
            "write it as runtimes.default with default_runtime_name = \"default\"",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "default_runtime",
            "runtime_path",
        ],
        Renamed(
            |c, _| Slot::MaybePath(&mut c.cri.runtime("default").runtime_path),
            "write it as runtimes.default.runtime_path",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "default_runtime",
            "runtime_engine",
        ],
        Renamed(
            |c, _| Slot::Text(&mut c.cri.runtime("default").runtime_engine),
            "write it as runtimes.default.options.BinaryName",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "default_runtime",
            "runtime_root",
        ],
        Renamed(
            |c, _| Slot::Text(&mut c.cri.runtime("default").runtime_root),
            "write it as runtimes.default.options.Root",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "default_runtime",
            "options",
            "**",
        ],
        Renamed(
            |c, rest| Slot::Tree(&mut c.cri.runtime("default").options, rest),
            "write it as runtimes.default.options",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "untrusted_workload_runtime",
            "runtime_type",
        ],
        Renamed(
            |c, _| Slot::Text(&mut c.cri.runtime("untrusted").runtime_type),
            "write it as runtimes.untrusted, and let a RuntimeClass name it",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "untrusted_workload_runtime",
            "runtime_path",
        ],
        Renamed(
            |c, _| Slot::MaybePath(&mut c.cri.runtime("untrusted").runtime_path),
            "write it as runtimes.untrusted.runtime_path",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "untrusted_workload_runtime",
            "runtime_engine",
        ],
        Renamed(
            |c, _| Slot::Text(&mut c.cri.runtime("untrusted").runtime_engine),
            "write it as runtimes.untrusted.options.BinaryName",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "untrusted_workload_runtime",
            "runtime_root",
        ],
        Renamed(
            |c, _| Slot::Text(&mut c.cri.runtime("untrusted").runtime_root),
            "write it as runtimes.untrusted.options.Root",
        ),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "untrusted_workload_runtime",
            "options",
            "**",
        ],
        Renamed(
            |c, rest| Slot::Tree(&mut c.cri.runtime("untrusted").options, rest),
            "write it as runtimes.untrusted.options",
        ),
    ),
    key(
        &[PLUGINS, CRI, "containerd", "runtimes", "*", "runtime_type"],
        Force(|c, name| Slot::Text(&mut c.cri.runtime(&name[0]).runtime_type)),
    ),
    key(
        &[PLUGINS, CRI, "containerd", "runtimes", "*", "runtime_path"],
        Force(|c, name| Slot::MaybePath(&mut c.cri.runtime(&name[0]).runtime_path)),
    ),
    key(
        &[
            PLUGINS,
            CRI,
            "containerd",
            "runtimes",
            "*",
            "runtime_engine",
        ],
        Renamed(
            |c, name| Slot::Text(&mut c.cri.runtime(&name[0]).runtime_engine),
            "write it as BinaryName into the runtime's options",
        ),
    ),
    key(
        &[PLUGINS, CRI, "containerd", "runtimes", "*", "runtime_root"],
        Renamed(
            |c, name| Slot::Text(&mut c.cri.runtime(&name[0]).runtime_root),
            "write it as Root into the runtime's options",
        ),
    ),
    key(
        &[PLUGINS, CRI, "containerd", "runtimes", "*", "options", "**"],
        Force(|c, mut rest| {
            let name = rest.remove(0);
            Slot::Tree(&mut c.cri.runtime(&name).options, rest)
        }),
    ),
    key(
        &[PLUGINS, CRI, "containerd", "runtimes", "*", "*"],
        Vain(NO_CRI, BY_CLIENT),
    ),
    key(
        &[PLUGINS, CRI, "containerd", "snapshotter"],
        Vain(
            NO_CRI,
            "ctr and nerdctl take --snapshotter; Docker has its own",
        ),
    ),
    key(
        &[PLUGINS, CRI, "sandbox_image"],
        Vain(
            NO_CRI,
            "in containerd 2 it is pinned_images.sandbox; keep it for then",
        ),
    ),
    key(
        &[PLUGINS, CRI, "cni", "bin_dir"],
        Vain(
            NO_CRI,
            "networks are the client's; in containerd 2 it is bin_dirs",
        ),
    ),
    key(
        &[PLUGINS, CRI, "cni", "**"],
        Vain(NO_CRI, "networks are the client's"),
    ),
    key(
        &[PLUGINS, CRI, "registry", "**"],
        Vain(
            NO_CRI,
            "clients use hosts.toml below registry.config_path, or take --hosts-dir",
        ),
    ),
    key(
        &[PLUGINS, CRI, "x509_key_pair_streaming", "**"],
        Vain(NO_CRI, "there is no streaming server to secure"),
    ),
    key(
        &[PLUGINS, CRI, "**"],
        Vain(NO_CRI, "keep it for then, or leave it out"),
    ),
];

const NO_TCP: &str = "the API is served on the unix socket only";
const FORWARD: &str = "forward a port to the socket by ssh -L, or by socat with TLS";
const NO_DEBUG: &str = "there is no debug socket";
const USR1: &str = "`kill -USR1` makes the daemon write its state to the log";
const NO_SNAPSHOTTER: Rule = Vain("there is no such snapshotter", "use overlayfs or native");

impl Key {
    /// What the wildcards of the row stand for in `path`; `None` when the row does not fit.
    pub(super) fn fits(&self, path: &[String]) -> Option<Vec<String>> {
        let mut stood_for = Vec::new();
        for (at, part) in self.path.iter().enumerate() {
            match (*part, path.get(at)) {
                ("**", Some(_)) => {
                    stood_for.extend_from_slice(&path[at..]);
                    return Some(stood_for);
                }
                ("*", Some(name)) => stood_for.push(name.clone()),
                (part, Some(name)) if part == name => {}
                _ => return None,
            }
        }
        (path.len() == self.path.len()).then_some(stood_for)
    }

    /// Whether the row is about something within the table `path`.
    pub(super) fn is_within(&self, path: &[String]) -> bool {
        self.path.len() > path.len()
            && self
                .path
                .iter()
                .zip(path)
                .all(|(part, name)| part == name || *part == "*")
    }

    /// Whether `path` is something within the value of the row, which is no table.
    pub(super) fn is_around(&self, path: &[String]) -> bool {
        let here = &path[..self.path.len().min(path.len())];
        path.len() > self.path.len() && self.fits(here).is_some()
    }
}
