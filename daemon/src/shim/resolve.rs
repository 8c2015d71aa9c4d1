//! From the name of a runtime to the binary of its shim, as containerd resolves it.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tonic::Status;

use crate::status;

/// The runtime of containerd 1.0 to 1.4 that had a shim API of its own; the runc shim replaces it.
pub const LEGACY_LINUX: &str = "io.containerd.runtime.v1.linux";
/// What runs containers where nothing else is said.
pub const DEFAULT_RUNTIME: &str = "io.containerd.runc.v2";

/// The shim of a task of `runtime`, for which a client may name the binary itself: `runtime_path`,
/// or empty.
///
/// # Errors
/// As [`shim_binary`]; `InvalidArgument` for a path that is not absolute.
pub fn of_task(
    runtime: &str,
    runtime_path: &str,
    path: &OsStr,
    beside: &Path,
) -> Result<PathBuf, Status> {
    match runtime_path {
        "" => shim_binary(runtime, path, beside),
        own if own.starts_with('/') => shim_binary(own, path, beside),
        own => Err(status::invalid(format_args!(
            "runtime path {own:?} must be absolute"
        ))),
    }
}

/// The shim of `runtime`: a path as it is; otherwise the last two parts of the name make
/// `containerd-shim-NAME-VERSION`, which is looked up in `path` and then beside the daemon. As with
/// containerd since it is built with Go 1.19, the working folder is not searched, not even where
/// `path` says so. What was found is looked up again the next time, so that a newly installed shim
/// serves the next container; containerd wants to be started again for that.
///
/// # Errors
/// `InvalidArgument` for a name that is neither; `NotFound` when no such binary is installed.
pub fn shim_binary(runtime: &str, path: &OsStr, beside: &Path) -> Result<PathBuf, Status> {
    let runtime = if runtime == LEGACY_LINUX {
        DEFAULT_RUNTIME
    } else {
        runtime
    };
    if runtime.starts_with('/') {
        let binary = PathBuf::from(runtime);
        if !is_executable(&binary) {
            return Err(missing(runtime, runtime));
        }
        return Ok(binary);
    }
    let parts: Vec<&str> = runtime.split('.').collect();
    let [.., name, version] = parts.as_slice() else {
        return Err(invalid(runtime));
    };
    if name.is_empty() || version.is_empty() || runtime.contains('/') {
        return Err(invalid(runtime));
    }
    let binary = format!("containerd-shim-{name}-{version}");
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .chain([beside.to_owned()])
        .map(|folder| folder.join(&binary))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| missing(runtime, &binary))
}

fn invalid(runtime: &str) -> Status {
    status::invalid(format_args!(
        "invalid runtime name {runtime}, correct runtime name should be either format like \
         `io.containerd.runc.v2` or a full path to the binary"
    ))
}

fn missing(runtime: &str, binary: &str) -> Status {
    status::not_found(format_args!(
        "runtime {runtime:?} binary not installed {binary:?}"
    ))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_as_with_containerd() {
        let dir = tempfile::tempdir().unwrap();
        let shim = dir.path().join("containerd-shim-runc-v2");
        std::fs::write(&shim, "").unwrap();
        let nowhere = Path::new("/nonexistent");
        let resolve = |name: &str| shim_binary(name, dir.path().as_os_str(), nowhere);
        let code = |name: &str| resolve(name).unwrap_err().code();
        assert_eq!(
            code("io.containerd.runc.v2"),
            tonic::Code::NotFound,
            "not executable"
        );
        std::fs::set_permissions(&shim, PermissionsExt::from_mode(0o755)).unwrap();
        for name in [
            "io.containerd.runc.v2",
            "runc.v2",
            LEGACY_LINUX,
            shim.to_str().unwrap(),
        ] {
            assert_eq!(resolve(name).unwrap(), shim, "{name}");
        }
        let beside = shim_binary("runc.v2", OsStr::new("relative:"), dir.path());
        assert_eq!(beside.unwrap(), shim);
        for name in ["", "runc", "a/b.c", "x.", "../runc.v2"] {
            assert_eq!(code(name), tonic::Code::InvalidArgument, "{name}");
        }
        assert_eq!(code("/nonexistent/shim"), tonic::Code::NotFound);
        let own = |own: &str| of_task("no.such", own, OsStr::new(""), nowhere);
        assert_eq!(own(shim.to_str().unwrap()).unwrap(), shim);
        assert_eq!(
            own("runc.v2").unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
    }
}
