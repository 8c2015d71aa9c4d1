//! What the daemon does to itself before it serves: its cgroup, its score for the kernel's
//! out-of-memory killer, its folder of temporary files, and seeing that it is what is required.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Sets up the process as `config` says.
///
/// # Errors
/// A text that names the key that cannot be met. A score that the kernel does not allow is only
/// logged: it is lowered without privileges in vain.
pub fn process(config: &Config) -> Result<(), String> {
    if !config.cgroup.is_empty() {
        join(Path::new(CGROUPS), &config.cgroup)
            .map_err(|error| format!("[cgroup] path {:?}: {error}", config.cgroup))?;
    }
    if config.oom_score != 0
        && let Err(error) = sys::process::set_oom_score_adj(sys::process::pid(), config.oom_score)
    {
        log::warn!("oom_score {}: {error}", config.oom_score);
    }
    if !config.temp.as_os_str().is_empty() {
        crate::serve::folder(&config.temp)?;
    }
    Ok(())
}

/// Checks `required_plugins` against the plugins that are served, each as its kind and its id.
///
/// # Errors
/// A text that names the first that is not there.
pub fn required_plugins<'p>(
    config: &Config,
    served: impl Fn() -> Vec<(&'p str, &'p str)>,
) -> Result<(), String> {
    let served = served();
    for name in &config.required_plugins {
        let is_it = |(kind, id): &(&str, &str)| {
            name.strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix('.'))
                == Some(id)
                && !config.disables(kind, id)
        };
        if !served.iter().any(is_it) {
            return Err(format!("required_plugins: {name} is not served"));
        }
    }
    Ok(())
}

/// Moves this process into the cgroup `path`, which is made where it is not there: in every v1
/// hierarchy below `mount`, or in cgroup v2 where that is mounted there itself.
fn join(mount: &Path, path: &str) -> io::Result<()> {
    let path = Path::new(path.trim_start_matches('/'));
    let plain = |part| matches!(part, std::path::Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(plain) {
        let text = "must name a cgroup, without `.` and `..`";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    for hierarchy in hierarchies(mount)? {
        let folder = hierarchy.join(path);
        let told = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
        };
        // A new cpuset has no processors and no memory, and takes nobody in.
        let made = make(&hierarchy, path).and_then(|()| {
            let pid = sys::process::pid().to_string();
            fs::write(folder.join("cgroup.procs"), pid)
        });
        made.map_err(told)?;
    }
    Ok(())
}

/// Every v1 hierarchy with a controller, or the v2 hierarchy alone. Links to one of them, such as
/// `cpu` to `cpu,cpuacct`, are left out.
fn hierarchies(mount: &Path) -> io::Result<Vec<PathBuf>> {
    if mount.join("cgroup.controllers").exists() {
        return Ok(vec![mount.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(mount)? {
        let entry = entry?;
        // The named hierarchies (`systemd`, `unified`) belong to whoever named them.
        let is_v1 = entry.path().join("cgroup.clone_children").exists();
        let named = ["systemd", "unified"].contains(&&*entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() && is_v1 && !named {
            found.push(entry.path());
        }
    }
    if found.is_empty() {
        let text = format!("{}: no cgroups are mounted there", mount.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(found)
}

/// Makes a cgroup and those above it, each v1 cpuset with what the one above has.
fn make(hierarchy: &Path, path: &Path) -> io::Result<()> {
    let mut folder = hierarchy.to_owned();
    for part in path.components() {
        let above = folder.clone();
        folder.push(part);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(folder.join(file)).unwrap_or_default();
            // Only a v1 cpuset starts empty and must not be; in v2 empty means all.
            let is_v1 = folder.join("cgroup.clone_children").exists();
            if is_v1 && own.trim().is_empty() && folder.join(file).exists() {
                fs::write(folder.join(file), fs::read(above.join(file))?)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_joined_in_every_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["memory", "cpu,cpuacct", "systemd"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("cgroup.clone_children"), "0").unwrap();
        }
        std::os::unix::fs::symlink("cpu,cpuacct", dir.path().join("cpu")).unwrap();
        join(dir.path(), "/a/b").unwrap();
        let pid = sys::process::pid().to_string();
        for name in ["memory", "cpu,cpuacct"] {
            let procs = dir.path().join(name).join("a/b/cgroup.procs");
            assert_eq!(fs::read_to_string(procs).unwrap(), pid);
        }
        assert!(!dir.path().join("systemd/a").exists());
        for path in ["/", "../x", "a/../b"] {
            join(dir.path(), path).unwrap_err();
        }
    }

    #[test]
    fn cgroup_v2_is_one_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory").unwrap();
        join(dir.path(), "a").unwrap();
        assert!(dir.path().join("a/cgroup.procs").exists());
    }

    #[test]
    fn what_is_required_must_be_there() {
        let served = || vec![("io.containerd.grpc.v1", "tasks")];
        let mut config = Config {
            required_plugins: vec!["io.containerd.grpc.v1.tasks".to_owned()],
            ..Config::default()
        };
        required_plugins(&config, served).unwrap();
        config.disabled_plugins = config.required_plugins.clone();
        required_plugins(&config, served).unwrap_err();
        config.required_plugins = vec!["io.containerd.grpc.v1.cri".to_owned()];
        required_plugins(&config, served).unwrap_err();
    }
}
