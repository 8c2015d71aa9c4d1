//! The core daemons beside each other: `wherryd` and Debian's containerd, each on folders and
//! sockets of its own, in one run, round by round.
//!
//! `node.rs` starts and ends one, `probe.rs` asks whether it serves, `boot.rs` times its start and
//! reads what it holds while idle, `runs.rs` times containers by Debian's `ctr`, `herd.rs` reads
//! what many idle containers cost it.

mod boot;
mod herd;
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

/// Everything about the daemons, as far as they are here.
pub fn measure(options: &Options, samples: &mut Samples) {
    let cores: Vec<Core> = Core::ALL
        .into_iter()
        .filter(|core| core.is_here())
        .collect();
    boot::measure(options, &cores, samples);
    runs::one_by_one(options, &cores, samples);
    runs::at_once(options, &cores, samples);
    herd::measure(options, &cores, samples);
}

/// The name of a daemon with a kind of shims, in samples and tables.
pub fn pair(core: Core, shims: Shims) -> String {
    format!("{}+{}", core.name(), shims.name())
}
