//! The names that the versions of the file have for the same key. Everything behind this module
//! knows only those of version 2, which is also the version that is written: of the four it is the
//! one that every containerd from 1.3 to 2.x reads.

use toml::Value;

use super::entries::{Entry, KeyPath};
use super::problem::Problem;

/// The newest version that is read.
pub(super) const NEWEST_READ: i64 = 4;
/// The version that is written.
pub(super) const WRITTEN: i64 = 2;

/// The table of all plugins.
pub(super) const PLUGINS: &str = "plugins";
/// The kubelet's interface.
pub(super) const CRI: &str = "io.containerd.grpc.v1.cri";
/// The runtime of containerd 1.0 to 1.4.
pub(super) const LINUX: &str = "io.containerd.runtime.v1.linux";

/// Plugins by the short names that version 1 calls them by.
const SHORT_NAMES: [(&str, &str); 22] = [
    ("aufs", "io.containerd.snapshotter.v1.aufs"),
    ("bolt", "io.containerd.metadata.v1.bolt"),
    ("btrfs", "io.containerd.snapshotter.v1.btrfs"),
    ("cgroups", "io.containerd.monitor.v1.cgroups"),
    ("containers", "io.containerd.grpc.v1.containers"),
    ("content", "io.containerd.content.v1.content"),
    ("cri", CRI),
    ("devmapper", "io.containerd.snapshotter.v1.devmapper"),
    ("diff-service", "io.containerd.service.v1.diff-service"),
    ("events", "io.containerd.grpc.v1.events"),
    ("healthcheck", "io.containerd.grpc.v1.healthcheck"),
    ("introspection", "io.containerd.grpc.v1.introspection"),
    ("leases", "io.containerd.grpc.v1.leases"),
    ("linux", LINUX),
    ("namespaces", "io.containerd.grpc.v1.namespaces"),
    ("native", "io.containerd.snapshotter.v1.native"),
    ("opt", "io.containerd.internal.v1.opt"),
    ("overlayfs", "io.containerd.snapshotter.v1.overlayfs"),
    ("restart", "io.containerd.internal.v1.restart"),
    ("scheduler", "io.containerd.gc.v1.scheduler"),
    ("task", "io.containerd.runtime.v2.task"),
    ("zfs", "io.containerd.snapshotter.v1.zfs"),
];

/// Where versions 3 and 4 have moved what version 2 has elsewhere: the plugin and the key there,
/// and the path here. The first that is a beginning of a path counts; an empty key is the whole
/// plugin.
const MOVED: &[(&str, &[&str], &[&str])] = &[
    ("io.containerd.server.v1.grpc", &[], &["grpc"]),
    (
        "io.containerd.server.v1.grpc-tcp",
        &["address"],
        &["grpc", "tcp_address"],
    ),
    (
        "io.containerd.server.v1.grpc-tcp",
        &["tls_ca"],
        &["grpc", "tcp_tls_ca"],
    ),
    (
        "io.containerd.server.v1.grpc-tcp",
        &["tls_cert"],
        &["grpc", "tcp_tls_cert"],
    ),
    (
        "io.containerd.server.v1.grpc-tcp",
        &["tls_key"],
        &["grpc", "tcp_tls_key"],
    ),
    ("io.containerd.server.v1.ttrpc", &[], &["ttrpc"]),
    ("io.containerd.server.v1.debug", &[], &["debug"]),
    ("io.containerd.server.v1.metrics", &[], &["metrics"]),
    (
        "io.containerd.cri.v1.images",
        &["snapshotter"],
        &[PLUGINS, CRI, "containerd", "snapshotter"],
    ),
    (
        "io.containerd.cri.v1.images",
        &["disable_snapshot_annotations"],
        &[PLUGINS, CRI, "containerd", "disable_snapshot_annotations"],
    ),
    (
        "io.containerd.cri.v1.images",
        &["discard_unpacked_layers"],
        &[PLUGINS, CRI, "containerd", "discard_unpacked_layers"],
    ),
    (
        "io.containerd.cri.v1.images",
        &["pinned_images", "sandbox"],
        &[PLUGINS, CRI, "sandbox_image"],
    ),
    ("io.containerd.cri.v1.images", &[], &[PLUGINS, CRI]),
    ("io.containerd.cri.v1.runtime", &[], &[PLUGINS, CRI]),
];

/// The version that a file says it is of; 1 when it says nothing, or 0, as containerd has it.
///
/// # Errors
/// The version is none that is read.
pub(super) fn version(entries: &[Entry]) -> Result<i64, Problem> {
    let Some(entry) = entries.iter().find(|entry| entry.path == ["version"]) else {
        return Ok(1);
    };
    match entry.value {
        Value::Integer(version @ 0..=NEWEST_READ) => Ok(version.max(1)),
        ref other => Err(entry.error(
            format!("version: {other} is not known"),
            "versions 1 to 4 are read",
        )),
    }
}

/// Gives an entry of a file of `version` the path, and where it names plugins the value, that
/// version 2 has for it.
///
/// # Errors
/// A plugin that is not named as its version wants it: containerd refuses that too.
pub(super) fn normalise(version: i64, entry: &mut Entry) -> Result<(), Problem> {
    let remedy = "name plugins in full, such as io.containerd.gc.v1.scheduler";
    if entry.path.len() > 1 && entry.path[0] == PLUGINS {
        if version == 1 {
            entry.path[1] = full_name(&entry.path[1]).to_owned();
        } else if !is_full(&entry.path[1]) {
            let text = format!("{}: the plugin has a short name", entry.name());
            return Err(entry.error(text, remedy));
        }
    }
    entry.path = moved(&entry.path);
    let names_plugins = ["disabled_plugins", "required_plugins"].contains(&entry.path[0].as_str());
    if names_plugins && let Value::Array(names) = &mut entry.value {
        for name in names {
            let Value::String(name) = name else { continue };
            if version == 1 {
                *name = full_name(name).to_owned();
            } else if !is_full(name) {
                let text = format!("{}: {name:?} is a short name", entry.path[0]);
                return Err(Problem::error(&entry.file, entry.line, text, remedy));
            }
        }
    }
    Ok(())
}

/// The full name of a plugin that version 1 may have a short one for.
pub(super) fn full_name(name: &str) -> &str {
    let known = SHORT_NAMES.iter().find(|(short, _)| *short == name);
    known.map_or(name, |(_, full)| full)
}

fn is_full(name: &str) -> bool {
    name.split('.').count() >= 4
}

fn moved(path: &[String]) -> KeyPath {
    if let [table, plugin, key @ ..] = path
        && table == PLUGINS
    {
        for (from, start, to) in MOVED {
            let starts = key.len() >= start.len() && key.iter().zip(*start).all(|(a, b)| a == b);
            if plugin == from && starts {
                let to = to.iter().map(|part| (*part).to_owned());
                return to.chain(key[start.len()..].iter().cloned()).collect();
            }
        }
    }
    path.to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::entries;
    use super::*;
    use std::path::Path;

    fn names(text: &str) -> Result<Vec<String>, Problem> {
        let mut read = entries::read(Path::new("f"), text).unwrap();
        let version = version(&read)?;
        for entry in &mut read {
            normalise(version, entry)?;
        }
        Ok(read
            .iter()
            .map(|entry| entries::name(&entry.path))
            .collect())
    }

    #[test]
    fn a_key_has_one_name_behind_this_module() {
        let scheduler = "plugins.\"io.containerd.gc.v1.scheduler\".schedule_delay";
        let both = [
            "[plugins.scheduler]\nschedule_delay = '0s'",
            "[plugins.'io.containerd.gc.v1.scheduler']\nschedule_delay = '0s'",
        ];
        for text in both {
            assert_eq!(names(text).unwrap(), [scheduler]);
        }
        let text = "version = 4\n[plugins.'io.containerd.server.v1.grpc-tcp']\naddress = ''\n\
            [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = ''\n";
        let expected = [
            "version",
            "grpc.tcp_address",
            "plugins.\"io.containerd.grpc.v1.cri\".sandbox_image",
        ];
        assert_eq!(names(text).unwrap(), expected);
    }

    #[test]
    fn short_names_are_those_of_version_1_only() {
        names("version = 2\n[plugins.cri]\na = 1").unwrap_err();
        names("version = 3\ndisabled_plugins = ['cri']").unwrap_err();
        let mut read = entries::read(Path::new("f"), "disabled_plugins = ['cri']").unwrap();
        normalise(1, &mut read[0]).unwrap();
        assert_eq!(
            read[0].value.as_array().unwrap()[0],
            Value::String(CRI.to_owned())
        );
    }

    #[test]
    fn versions_are_0_to_4() {
        for text in ["version = 5", "version = -1", "version = '2'"] {
            names(text).unwrap_err();
        }
        names("version = 0").unwrap();
    }
}
