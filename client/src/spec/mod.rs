//! The OCI runtime spec of a new container: containerd's own defaults, and what the command line
//! says otherwise.

mod capabilities;
pub(crate) mod image;
mod limits;
mod mounts;
mod user;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    BoxBuilder, LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, PosixRlimitBuilder,
    PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder, User,
};

pub(crate) use limits::{Cpus, parse_bytes, parse_cpus};
pub(crate) use mounts::{BindMount, parse_mount, parse_volume};
pub(crate) use user::find_user;

use crate::error::{Error, Result};

/// Under which type name a spec travels: its bytes are JSON.
pub(crate) const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The same of the process of an exec.
pub(crate) const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What of `/proc` and `/sys` tells about the host.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
/// What of `/proc` would change the host.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Which network a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// A network of its own, with nothing in it
    None,
    /// The host's
    Host,
}

/// What the command line says of a container.
#[derive(Debug)]
#[allow(missing_docs, reason = "each field is the flag of its name")]
pub(crate) struct Wishes<'a> {
    pub(crate) id: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) rootfs: &'a Path,
    pub(crate) command: &'a [String],
    pub(crate) base_env: &'a [String],
    pub(crate) env: &'a [String],
    pub(crate) cwd: &'a Path,
    pub(crate) user: User,
    pub(crate) hostname: Option<&'a str>,
    pub(crate) terminal: bool,
    pub(crate) console: Option<(u32, u32)>,
    pub(crate) read_only: bool,
    pub(crate) network: Network,
    pub(crate) mounts: Vec<BindMount>,
    pub(crate) cap_add: &'a [String],
    pub(crate) cap_drop: &'a [String],
    pub(crate) memory: Option<i64>,
    pub(crate) cpus: Option<Cpus>,
    pub(crate) pids_limit: Option<i64>,
}

/// The spec.
///
/// # Errors
/// A wish that cannot be met, by name.
pub(crate) fn build(wishes: Wishes<'_>) -> Result<Spec> {
    let invalid = |error: oci_spec::OciSpecError| Error::said(format!("the spec: {error}"));
    let mut process = ProcessBuilder::default()
        .terminal(wishes.terminal)
        .user(wishes.user)
        .args(wishes.command)
        .env(environment(wishes.base_env, wishes.env, wishes.terminal))
        .cwd(wishes.cwd)
        .capabilities(capabilities::chosen(wishes.cap_add, wishes.cap_drop)?)
        .rlimits([PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .hard(1024u64)
            .soft(1024u64)
            .build()
            .map_err(invalid)?])
        .no_new_privileges(true)
        .build()
        .map_err(invalid)?;
    process.set_console_size(match wishes.console {
        Some((width, height)) => Some(
            BoxBuilder::default()
                .width(width)
                .height(height)
                .build()
                .map_err(invalid)?,
        ),
        None => None,
    });
    let resources = limits::resources(wishes.memory, wishes.cpus, wishes.pids_limit);
    let linux = LinuxBuilder::default()
        .cgroups_path(Path::new("/").join(wishes.namespace).join(wishes.id))
        .namespaces(namespaces(wishes.network).map_err(invalid)?)
        .masked_paths(MASKED.map(str::to_owned))
        .readonly_paths(READ_ONLY.map(str::to_owned))
        .resources(resources.map_err(invalid)?)
        .build()
        .map_err(invalid)?;
    let mounts = mounts::all(wishes.network, wishes.mounts).map_err(invalid)?;
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(
            RootBuilder::default()
                .path(wishes.rootfs)
                .readonly(wishes.read_only)
                .build()
                .map_err(invalid)?,
        )
        .mounts(mounts)
        .process(process)
        .linux(linux)
        .build()
        .map_err(invalid)?;
    spec.set_hostname(Some(wishes.hostname.unwrap_or(wishes.id).to_owned()));
    spec.set_annotations(None);
    Ok(spec)
}

/// The defaults and the image's, then what was said: a later word about a variable replaces the
/// earlier.
fn environment(image: &[String], said: &[String], terminal: bool) -> Vec<String> {
    let mut variables = Vec::new();
    if !image.iter().any(|variable| variable.starts_with("PATH=")) {
        variables.push(PATH.to_owned());
    }
    variables.extend_from_slice(image);
    if terminal {
        add_variables(&mut variables, &["TERM=xterm".to_owned()]);
    }
    add_variables(&mut variables, said);
    variables
}

/// Adds `NAME=VALUE`, or `NAME` with the value it has here (none if it has none).
pub(crate) fn add_variables(variables: &mut Vec<String>, said: &[String]) {
    for variable in said {
        let whole = match variable.split_once('=') {
            Some(_) => Some(variable.clone()),
            None => std::env::var(variable)
                .ok()
                .map(|value| format!("{variable}={value}")),
        };
        let name = variable.split('=').next().unwrap_or_default();
        variables.retain(|known| known.split('=').next() != Some(name));
        variables.extend(whole);
    }
}

fn namespaces(
    network: Network,
) -> std::result::Result<Vec<oci_spec::runtime::LinuxNamespace>, oci_spec::OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network as Net, Pid, Uts};
    let mut types = vec![Pid, Ipc, Uts, Mount];
    if network == Network::None {
        types.push(Net);
    }
    // As containerd does: on cgroup v1 the view of the cgroups stays the host's.
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        types.push(Cgroup);
    }
    let made = types
        .into_iter()
        .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build());
    made.collect()
}

/// The folder as an absolute path.
///
/// # Errors
/// It is not there, or no folder.
pub(crate) fn rootfs(path: &Path) -> Result<PathBuf> {
    let name = path.display();
    let whole = path
        .canonicalize()
        .map_err(|cause| Error::io(format!("--rootfs {name}"), cause))?;
    if !whole.is_dir() {
        return Err(Error::said(format!("--rootfs {name}: it is no folder")));
    }
    if whole.to_str().is_none() {
        return Err(Error::said(format!(
            "--rootfs {name}: a spec can only hold UTF-8"
        )));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes<'a>(command: &'a [String], env: &'a [String]) -> Wishes<'a> {
        Wishes {
            id: "c",
            namespace: "n",
            rootfs: Path::new("/r"),
            command,
            base_env: &[],
            env,
            cwd: Path::new("/"),
            user: User::default(),
            hostname: None,
            terminal: false,
            console: None,
            read_only: false,
            network: Network::None,
            mounts: Vec::new(),
            cap_add: &[],
            cap_drop: &[],
            memory: None,
            cpus: None,
            pids_limit: None,
        }
    }

    #[test]
    fn the_default_is_containerds() {
        let command = ["/bin/true".to_owned()];
        let spec = build(wishes(&command, &[])).unwrap();
        let spec = serde_json::to_value(spec).unwrap();
        let process = &spec["process"];
        assert_eq!(process["args"], serde_json::json!(["/bin/true"]));
        assert_eq!(process["noNewPrivileges"], true);
        assert_eq!(process["env"], serde_json::json!([PATH]));
        assert_eq!(
            process["capabilities"]["bounding"]
                .as_array()
                .unwrap()
                .len(),
            14
        );
        assert_eq!(process["capabilities"].get("ambient"), None);
        assert_eq!(process["capabilities"].get("inheritable"), None);
        let linux = &spec["linux"];
        assert_eq!(linux["cgroupsPath"], "/n/c");
        let deny = serde_json::json!([{ "allow": false, "access": "rwm" }]);
        assert_eq!(linux["resources"]["devices"], deny);
        assert_eq!(linux["maskedPaths"].as_array().unwrap().len(), 10);
        let types = linux["namespaces"].to_string();
        assert!(types.contains("network"), "{types}");
        let mounts = spec["mounts"].as_array().unwrap().iter();
        let targets: Vec<_> = mounts.map(|mount| &mount["destination"]).collect();
        let wanted = [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/shm",
            "/dev/mqueue",
            "/sys",
            "/run",
        ];
        assert_eq!(targets, wanted);
        assert_eq!(spec["hostname"], "c");
    }

    #[test]
    fn the_hosts_network_comes_with_its_names() {
        let command = ["x".to_owned()];
        let mut wishes = wishes(&command, &[]);
        wishes.network = Network::Host;
        let spec = serde_json::to_value(build(wishes).unwrap()).unwrap();
        assert!(!spec["linux"]["namespaces"].to_string().contains("network"));
        assert!(spec["mounts"].to_string().contains("/etc/resolv.conf"));
    }

    #[test]
    fn a_later_variable_replaces_an_earlier() {
        let said = ["A=1", "PATH=/x", "A=2=3", "NOT_SET_ANYWHERE"].map(str::to_owned);
        let image = ["TERM=x", "A=0"].map(str::to_owned);
        let made = environment(&image, &said, true);
        assert_eq!(made, ["TERM=xterm", "PATH=/x", "A=2=3"]);
        assert_eq!(environment(&image, &[], false), [PATH, "TERM=x", "A=0"]);
    }
}
