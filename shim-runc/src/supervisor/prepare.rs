//! What Create does before the runtime runs, in a helper thread since it may block: check and
//! read the bundle, write the files that `delete` will need, mount the rootfs.

use std::path::{Path, PathBuf};

use shim_common::bundle::Bundle;
use shim_common::spec::Spec;
use sys::mount::Mount;
use crate::runc::RuncOptions;
use task_api::status::Refusal;

/// What to prepare.
pub(super) struct Preparation {
    pub(super) bundle: PathBuf,
    pub(super) mounts: Vec<Mount>,
    pub(super) options: RuncOptions,
    /// Name of the runtime's binary, for the bundle's `runtime` file.
    pub(super) runtime: String,
}

/// What the bundle said.
pub(super) struct Prepared {
    pub(super) private_pid_namespace: bool,
    pub(super) mounted: bool,
}

/// Prepares the bundle; on failure nothing stays mounted.
pub(super) fn prepare(work: Preparation) -> Result<Prepared, Refusal> {
    let bundle = Bundle::new(&work.bundle);
    let text = bundle
        .read_config()
        .map_err(|error| Refusal::invalid_argument(error.to_string()))?;
    let spec = Spec::parse(&text, &bundle.config_path())
        .map_err(|error| Refusal::invalid_argument(error.to_string()))?;
    let write = |error: shim_common::bundle::BundleError| Refusal::unknown(error.to_string());
    bundle.write_options(&work.options).map_err(write)?;
    bundle.write_runtime(&work.runtime).map_err(write)?;
    if !work.mounts.is_empty() {
        sys::mount::mount_all(&work.mounts, &bundle.rootfs_path()).map_err(|error| {
            Refusal::unknown(format!("failed to mount rootfs component: {error}"))
        })?;
    }
    Ok(Prepared {
        private_pid_namespace: spec.has_private_pid_namespace(),
        mounted: !work.mounts.is_empty(),
    })
}

/// Unmounts what [`prepare`] mounted.
pub(super) fn unmount(rootfs: &Path) -> Result<(), String> {
    sys::mount::unmount_recursive(rootfs).map_err(|error| error.to_string())
}
