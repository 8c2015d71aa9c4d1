//! The `delete` action: containerd runs it after every container and after every crash of a shim,
//! to remove what is left (shim-contract section 1.8).
//!
//! It is on the way of every teardown, where nothing is left, so it must find that out quickly:
//! runc and crun are not even started when they have no state of the container (DESIGN rule 7).
//! No failure of a step ends it; each is a warning, and the next step runs.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use protobuf::{Message, MessageField};
use shim_common::bundle;
use shim_common::cgroup::Cgroup;
use shim_common::cli::Flags;
use shim_common::socket;
use shim_common::spec::{self, Spec};
use shim_common::stdio;
use task_api::bootstrap::SOCKET_DIR;
use task_api::bundle::{ADDRESS, CONFIG, INIT_PID, OPTIONS, ROOTFS, RUNTIME, SOCKET_DIR_LINK};
use task_api::options::RUNC_OPTIONS;
use task_api::task::DeleteResponse;
use task_api::time;

use crate::flavor::Flavor;
use crate::runc::{ContainerStdio, RuncOptions, Runtime, options};

/// How long the runtime may take to delete the container; containerd gives up after 5 s, and the
/// clean-up goes on.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a runtime that was killed may take to be gone.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);
/// The exit status reported: killed by SIGKILL.
const KILLED: u32 = 128 + 9;

/// Removes what is left of the container and gives the reply, an encoded `DeleteResponse` with
/// the pid that the container's first process had (Docker needs it), or 0.
///
/// # Errors
/// A bundle whose place cannot be told, and failures of the encoder; all else is only logged.
pub fn delete(flavor: Flavor, flags: &Flags) -> Result<Vec<u8>, String> {
    let bundle = bundle_of(flags)?;
    let options = read_options(&bundle);
    let runtime = Runtime::new(&options, &flags.namespace);
    let text = spec::read(&bundle.join(CONFIG)).inspect_err(|error| log::debug!("{error}"));
    let text = text.unwrap_or_default();
    let spec = Spec::parse(&bundle.join(CONFIG), &text).unwrap_or_default();

    delete_by_runtime(&runtime, &flags.id, &bundle);
    // A path that is only guessed may be that of a folder of cgroups, `/docker` for one.
    let told = spec.cgroups_path().is_some();
    for path in cgroup_paths(&spec, &flags.id, &runtime) {
        remove_cgroup(
            &path,
            runtime.systemd_cgroup,
            told && is_named_after(&path, &flags.id),
        );
    }
    if let Err(error) = sys::mount::unmount_recursive(&bundle.join(ROOTFS)) {
        log::warn!("failed to clean up rootfs mount: {error}");
    }
    let pid = bundle::read_pid(&bundle, INIT_PID).unwrap_or_else(|error| {
        log::warn!("failed to read the init pid: {error}");
        None
    });
    remove_sockets(flavor, flags, &bundle, &spec);
    let env: Vec<_> = std::env::vars_os().collect();
    let consoles = stdio::runtime_dir(&env);
    if let Err(error) = stdio::remove_consoles(&consoles, &flags.namespace, &flags.id) {
        log::warn!("remove console sockets: {error}");
    }

    let response = DeleteResponse {
        pid: pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        exit_status: KILLED,
        exited_at: MessageField::some(time::to_timestamp(SystemTime::now())),
        ..DeleteResponse::default()
    };
    response
        .write_to_bytes()
        .map_err(|error| format!("encode the reply: {error}"))
}

/// The bundle: the one of the command line, else the one of this id beside the working directory,
/// which is the bundle of some container of the namespace.
fn bundle_of(flags: &Flags) -> Result<PathBuf, String> {
    if !flags.bundle.as_os_str().is_empty() {
        return std::path::absolute(&flags.bundle)
            .map_err(|error| format!("bundle {}: {error}", flags.bundle.display()));
    }
    let own = std::env::current_dir().map_err(|error| format!("working directory: {error}"))?;
    Ok(own.parent().unwrap_or(&own).join(&flags.id))
}

/// The options that the container was created with, by this shim or by Go's. Their absence is the
/// lot of a container whose Create never came that far.
fn read_options(bundle: &Path) -> RuncOptions {
    let read = |name| {
        bundle::read(bundle, name).unwrap_or_else(|error| {
            log::warn!("{error}");
            None
        })
    };
    let text = read(OPTIONS)
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "{}".to_owned());
    let mut options = options::load(RUNC_OPTIONS, text.as_bytes()).unwrap_or_else(|error| {
        log::warn!("{}: {error}", bundle.join(OPTIONS).display());
        RuncOptions::default()
    });
    if let Some(binary) = read(RUNTIME).filter(|binary| !binary.is_empty()) {
        options.binary_name = binary;
    }
    options
}

/// Lets the runtime kill and delete the container, unless it certainly has none of this id.
fn delete_by_runtime(runtime: &Runtime, id: &str, bundle: &Path) {
    if runtime.kind.state_dir_is_proof() && !exists(&runtime.state_dir(id)) {
        return;
    }
    let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    // Its bundle may be gone by now.
    let cwd = if bundle.is_dir() {
        bundle
    } else {
        Path::new("/")
    };
    let call = runtime.delete(id, true);
    let running = match call.start(&env, cwd, ContainerStdio::Collected) {
        Ok(running) => running,
        Err(error) => return log::warn!("failed to delete the container: {error}"),
    };
    let exited = match sys::wait::wait_timeout(&running.child, RUNTIME_TIMEOUT) {
        Ok(Some(exited)) => exited,
        Ok(None) => {
            log::warn!(
                "{} delete takes more than 10 s: killed",
                runtime.program.display()
            );
            let _ = sys::pidfd::kill_group(running.child.pid, libc::SIGKILL);
            let _ = sys::wait::wait_timeout(&running.child, REAP_TIMEOUT);
            return;
        }
        Err(error) => return log::warn!("failed to wait for the runtime: {error}"),
    };
    if let Err(error) = running.outcome(exited.status) {
        log::warn!("failed to delete the container: {error}");
    }
}

/// Whether something is at `path`; when that cannot be told, it may be.
fn exists(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound)
}

/// Where the container's cgroup can be, in a spec's notation: as the spec says, in the way runc
/// and crun read it, else named after the id.
fn cgroup_paths(spec: &Spec<'_>, id: &str, runtime: &Runtime) -> Vec<String> {
    let own = || own_cgroups(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    let below = |own: Vec<String>, path: &str| -> Vec<String> {
        own.iter()
            .map(|own| format!("{}/{path}", own.trim_end_matches('/')))
            .collect()
    };
    match spec.cgroups_path() {
        Some(path) if runtime.systemd_cgroup || path.starts_with('/') => vec![path.to_owned()],
        // Relative to the runtime's own cgroup, which was started from one like ours.
        Some(path) => below(own(), path),
        None if runtime.systemd_cgroup => {
            let name = runtime
                .program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            vec![format!("system.slice:{name}:{id}")]
        }
        None => {
            let mut paths = below(own(), id);
            let plain = format!("/{id}");
            if !paths.contains(&plain) {
                paths.push(plain);
            }
            paths
        }
    }
}

/// The distinct paths in a `/proc/self/cgroup`.
fn own_cgroups(table: &str) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for line in table.lines() {
        if let Some(path) = line.splitn(3, ':').nth(2)
            && !paths.iter().any(|known| known == path)
        {
            paths.push(path.to_owned());
        }
    }
    paths
}

/// Whether a cgroup's own name is the container's id, as every client of containerd has it:
/// `/default/ID`, `/docker/ID`, `SLICE:cri-containerd:ID`. A path that a user made up may be that
/// of several containers.
fn is_named_after(path: &str, id: &str) -> bool {
    path.rsplit(['/', ':']).next() == Some(id)
}

/// Kills what is left in the container's cgroup and removes it. A cgroup that is not certainly the
/// container's alone goes only if it is empty: others may live in it.
fn remove_cgroup(path: &str, systemd: bool, sole_owner: bool) {
    let cgroup = match Cgroup::of_spec(path, systemd) {
        Ok(cgroup) => cgroup,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => return log::warn!("cgroup {path}: {error}"),
    };
    if sole_owner {
        if let Err(error) = cgroup.kill_all() {
            log::warn!("kill what is left in cgroup {path}: {error}");
        }
    } else if !matches!(cgroup.populated(), Ok(false)) {
        return log::info!("cgroup {path} has processes and may be another's too: kept");
    }
    if let Err(error) = cgroup.remove() {
        log::warn!("remove cgroup {path}: {error}");
    }
}

/// Removes the shim's socket if it is dead: a shim that was killed leaves it. Only files in the
/// folder of the sockets are looked at, whatever the `address` file says.
fn remove_sockets(flavor: Flavor, flags: &Flags, bundle: &Path, spec: &Spec<'_>) {
    let linked = std::fs::read_link(bundle.join(SOCKET_DIR_LINK)).ok();
    let dir = linked.as_deref().unwrap_or_else(|| Path::new(SOCKET_DIR));
    let group = if flavor.groups() { spec.group() } else { None };
    let group = group.unwrap_or(&flags.id);
    let mut paths = vec![socket::path(dir, &flags.address, &flags.namespace, group)];
    let address = bundle::read(bundle, ADDRESS)
        .unwrap_or_default()
        .unwrap_or_default();
    if let Some(path) = socket::path_of(&address)
        && path.parent() == Some(dir)
        && path != paths[0]
    {
        paths.push(path.to_owned());
    }
    for path in paths {
        if let Err(error) = socket::remove_dead(&path) {
            log::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(spec: &str, options: &RuncOptions) -> Vec<String> {
        let spec = Spec::parse(Path::new("config.json"), spec.as_bytes()).unwrap();
        cgroup_paths(&spec, "c1", &Runtime::new(options, "ns"))
    }

    #[test]
    fn a_cgroup_is_where_the_spec_says() {
        let cgroupfs = RuncOptions::default();
        let absolute = r#"{"linux":{"cgroupsPath":"/ns/c1"}}"#;
        assert_eq!(paths(absolute, &cgroupfs), ["/ns/c1"]);
        let relative = paths(r#"{"linux":{"cgroupsPath":"x/c1"}}"#, &cgroupfs);
        assert!(
            relative
                .iter()
                .all(|path| path.starts_with('/') && path.ends_with("/x/c1"))
        );
        let none = paths("{}", &cgroupfs);
        assert!(none.contains(&"/c1".to_owned()), "{none:?}");
        let systemd = RuncOptions {
            systemd_cgroup: true,
            ..RuncOptions::default()
        };
        assert_eq!(paths("{}", &systemd), ["system.slice:runc:c1"]);
        let unit = r#"{"linux":{"cgroupsPath":"pods.slice:cri:c1"}}"#;
        assert_eq!(paths(unit, &systemd), ["pods.slice:cri:c1"]);
    }

    #[test]
    fn only_a_cgroup_named_after_the_container_is_its_own() {
        for path in [
            "/default/c1",
            "pods.slice:cri-containerd:c1",
            ":runc:c1",
            "/c1",
        ] {
            assert!(is_named_after(path, "c1"), "{path}");
        }
        for path in [
            "/default/c11",
            "/c1/shared",
            "/pods-c1",
            "c1.slice:c1:x",
            "/",
            "",
        ] {
            assert!(!is_named_after(path, "c1"), "{path}");
        }
    }

    #[test]
    fn the_own_cgroups_are_listed_once() {
        let table = "4:memory:/a\n3:cpu,cpuacct:/\n2:name=systemd:/\n0::/\n";
        assert_eq!(own_cgroups(table), ["/a", "/"]);
    }

    #[test]
    fn the_runtime_file_goes_before_the_options() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_options(dir.path()), RuncOptions::default());
        let text = r#"{"binary_name":"crun","root":"/r","some_new_option":1}"#;
        std::fs::write(dir.path().join(OPTIONS), text).unwrap();
        assert_eq!(read_options(dir.path()).binary_name, "crun");
        std::fs::write(dir.path().join(RUNTIME), "/usr/bin/runc").unwrap();
        let options = read_options(dir.path());
        assert_eq!(
            (options.binary_name.as_str(), options.root.as_str()),
            ("/usr/bin/runc", "/r")
        );
        std::fs::write(dir.path().join(OPTIONS), "{").unwrap();
        assert_eq!(read_options(dir.path()).binary_name, "/usr/bin/runc");
    }
}
