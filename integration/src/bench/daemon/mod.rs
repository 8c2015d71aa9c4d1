//! The core daemons beside each other: `wherryd` and Debian's containerd, each on folders and
//! sockets of its own, in one run, round by round.
//!
//! `node.rs` starts and ends one, `ground.rs` makes what its folders are on, `probe.rs` asks whether
//! it serves, `boot.rs` times its start and reads what it holds while idle, `runs.rs` times containers
//! by Debian's `ctr`, `herd.rs` reads what many idle containers cost it, `images/` puts images in and
//! takes lists out. `grpc.rs` calls a daemon where a client program would take longer than the call.

mod boot;
mod ground;
mod grpc;
mod herd;
mod images;
mod node;
mod probe;
mod runs;

pub use node::{Core, Shims};

use super::options::Options;
use super::samples::Samples;

/// The pair that stands for this project: our daemon with our shims.
pub const OURS: &str = "wherryd+ours";
/// The pair it is measured against: Debian's daemon with the Go shims.
pub const GO: &str = "containerd+go";

/// Everything about the daemons and containers, as far as the daemons are here.
pub fn measure(options: &Options, samples: &mut Samples) {
    let cores = here();
    boot::measure(options, &cores, samples);
    runs::one_by_one(options, &cores, samples);
    runs::at_once(options, &cores, samples);
    herd::measure(options, &cores, samples);
}

/// Everything about the daemons and images.
pub fn measure_images(options: &Options, samples: &mut Samples) {
    images::measure(options, &here(), samples);
}

fn here() -> Vec<Core> {
    let all = Core::ALL.into_iter();
    all.filter(|core| core.is_here()).collect()
}

/// The name of a daemon with a kind of shims, in samples and tables.
pub fn pair(core: Core, shims: Shims) -> String {
    format!("{}+{}", core.name(), shims.name())
}
