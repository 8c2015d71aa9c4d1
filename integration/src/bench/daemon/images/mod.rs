//! Images on the core daemons: one image of 300 MB in, thousands of records out.
//!
//! `picture.rs` makes the image, `registry.rs` the registry; `transfer.rs` times import and pull,
//! `records.rs` lists and snapshots.

mod picture;
mod records;
mod registry;
mod transfer;

use std::collections::BTreeMap;

use crate::host;

use super::super::options::Options;
use super::super::samples::Samples;
use super::node::{Core, Node};

/// Everything about images, as far as the daemons are here; and metric `images.peak`, the most
/// memory in kB that any of the daemons of a kind ever had.
pub(super) fn measure(options: &Options, cores: &[Core], samples: &mut Samples) {
    let folder = tempfile::Builder::new().prefix("wherry-bench.").tempdir();
    let folder = folder.expect("a folder for the image");
    let picture = picture::make(folder.path());
    let mut peaks = Peaks::default();
    transfer::measure(options, cores, &picture, samples, &mut peaks);
    records::prepared(options, cores, samples, &mut peaks);
    records::listed(options, cores, samples, &mut peaks);
    for (name, peak) in peaks.0 {
        samples.push("images.peak", name, peak);
    }
}

/// The most memory that a daemon of each kind has had, in kB.
#[derive(Default)]
struct Peaks(BTreeMap<&'static str, f64>);

impl Peaks {
    /// Looks at a daemon that runs: the kernel remembers what it ever had.
    fn see(&mut self, node: &Node) {
        let field = host::status_field(node.pid(), "VmHWM");
        let number = field.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        let most = self.0.entry(node.core.name()).or_default();
        *most = most.max(number.expect("VmHWM of the daemon"));
    }
}
