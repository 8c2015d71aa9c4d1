//! The keys of the kubelet's plugin (CRI): its runtimes are kept, the rest waits for the day when
//! it is served.

use super::super::slot::Slot;
use super::super::spelling::{CRI, PLUGINS};
use super::Rule::{Force, Renamed, Vain};
use super::{Key, key};

const NO_CRI: &str = "the kubelet (CRI) is not served yet";
const BY_CLIENT: &str = "no effect yet on ctr and Docker, who name their runtime themselves";

/// Each key with what is done with it.
pub(super) const KEYS: &[Key] = &[
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
