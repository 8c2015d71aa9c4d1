//! Real engines around the shims under test: a private stock containerd, a private Docker, and
//! the clients people use (`ctr`, `docker`).
//!
//! Which shims are tested is a parameter: `SHIM_DIR` names the folder that holds
//! `containerd-shim-runc-v1` and `-v2` (default: the release folder of this workspace), and
//! `SHIM_OTHER_DIR` the folder of the Go shims that swap tests exchange them with (default:
//! `/usr/bin`). `WHERRY_QUICK`, when set, shortens the long tests; `WHERRY_KEEP` keeps the folder of
//! a daemon (its log, configuration and state) after the test.
//!
//! Everything a test starts lives under one folder, one containerd namespace and one cgroup
//! parent of its own, so what it leaves behind can be told from everything else on the machine
//! ([`Footprint`]), and is removed when the engine is dropped, also after a failed assertion.
//!
//! A harness has no caller to hand an error to: what cannot be set up ends the test with a panic
//! that names the thing.

mod containerd;
mod criu;
mod docker;
mod footprint;
mod image;
mod mounts;
mod run;
mod shims;
mod wait;

pub use containerd::{Containerd, IMAGE};
pub use criu::Criu;
pub use docker::Dockerd;
pub use footprint::{Footprint, Shim};
pub use image::{layer_tar, unpack_rootfs};
pub use run::{Output, Running, command, in_terminal, run};
pub use shims::{SwapDir, are_go_shims, other_dir, quick, shim_dir};
pub use wait::{LONG, SHORT, until, until_ok};
