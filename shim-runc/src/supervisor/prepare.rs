//! What Create does before the runtime runs, in a helper thread since it may block: check and
//! read the bundle, write the files that `delete` will need, mount the rootfs.

use std::path::{Path, PathBuf};

use crate::runc::RuncOptions;
use shim_common::bundle;
use shim_common::spec::{self, Spec};
use sys::mount::Mount;
use task_api::bundle::{CONFIG, OPTIONS, ROOTFS, RUNTIME};
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
    let config = work.bundle.join(CONFIG);
    let text = spec::read(&config).map_err(Refusal::invalid_argument)?;
    let spec = Spec::parse(&config, &text).map_err(Refusal::invalid_argument)?;
    let options = serde_json::to_string(&work.options).map_err(Refusal::internal)?;
    bundle::write(&work.bundle, OPTIONS, &options).map_err(Refusal::unknown)?;
    bundle::write(&work.bundle, RUNTIME, &work.runtime).map_err(Refusal::unknown)?;
    if !work.mounts.is_empty() {
        sys::mount::mount_all(&work.mounts, &work.bundle.join(ROOTFS)).map_err(|error| {
            Refusal::unknown(format_args!("failed to mount rootfs component: {error}"))
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
