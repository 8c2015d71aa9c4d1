//! The keys of the daemon itself and of its plugins, save the kubelet's.

use super::super::slot::Slot;
use super::super::spelling::{LINUX, PLUGINS};
use super::Rule::{self, Force, Reader, Vain};
use super::{Key, key};

/// Names of levels that may be logged.
const LEVELS: &[&str] = &[
    "trace", "debug", "info", "warn", "warning", "error", "fatal", "panic",
];

const SCHEDULER: &str = "io.containerd.gc.v1.scheduler";
const TASK: &str = "io.containerd.runtime.v2.task";
const DROP: &str = "leave it out; it does no harm";
const NO_TCP: &str = "the API is served on the unix socket only";
const FORWARD: &str = "forward a port to the socket by ssh -L, or by socat with TLS";
const NO_DEBUG: &str = "there is no debug socket";
const USR1: &str = "`kill -USR1` makes the daemon write its state to the log";
const NO_SNAPSHOTTER: Rule = Vain("there is no such snapshotter", "use overlayfs or native");

/// Each key with what is done with it.
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
        &[PLUGINS, "io.wherry.diff.v1", "unpack_reserve"],
        Force(|c, _| Slot::Bytes(&mut c.unpack_reserve)),
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
];
