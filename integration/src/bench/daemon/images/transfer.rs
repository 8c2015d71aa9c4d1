//! An image into an empty daemon, from a file and from a registry, by `ctr`.

use std::ffi::OsStr;
use std::path::Path;

use super::super::super::options::Options;
use super::super::super::process::processor_seconds;
use super::super::super::rig::{REST, pass, timed};
use super::super::super::samples::Samples;
use super::super::ground::{Ground, warm};
use super::super::node::{Core, Node, well};
use super::Peaks;
use super::picture::NAME;
use super::registry::Registry;

/// Metrics `images.import` and `images.pull`, milliseconds of `ctr` from start to end on an empty
/// daemon, and `images.import-cpu` and `images.pull-cpu`, processor milliseconds of the daemon.
pub(super) fn measure(
    options: &Options,
    cores: &[Core],
    picture: &Path,
    samples: &mut Samples,
    peaks: &mut Peaks,
) {
    let registry = Registry::start();
    let rounds = options.transfers();
    rounds_of(rounds, cores, peaks, |round, ground, node| {
        warm(picture);
        let arguments = ["images", "import"].map(OsStr::new);
        take(
            ground,
            node,
            "images.import",
            arguments.into_iter().chain([picture.as_os_str()]),
            samples,
        );
        if let (Some(registry), 0) = (&registry, round) {
            // From whichever daemon comes first; the bytes are the same.
            let name = registry.name();
            well(node.ctr(["images", "tag", "--force", NAME, &name]));
            well(node.ctr(["images", "push", "--plain-http", &name]));
        }
    });
    let Some(registry) = registry else { return };
    rounds_of(rounds, cores, peaks, |_, ground, node| {
        let name = registry.name();
        let arguments = ["images", "pull", "--plain-http", &name];
        take(ground, node, "images.pull", arguments, samples);
    });
}

/// Each round on a filesystem of its own, each daemon in it once, now this one first and now that.
fn rounds_of(
    rounds: usize,
    cores: &[Core],
    peaks: &mut Peaks,
    mut work: impl FnMut(usize, &Ground, &Node),
) {
    for round in 0..rounds {
        super::super::super::progress(round + 1, rounds);
        let ground = Ground::disk();
        for turn in 0..cores.len() {
            let core = cores[(turn + round) % cores.len()];
            let mut node = Node::on(core, ground.path());
            node.start();
            work(round, &ground, &node);
            peaks.see(&node);
            node.stop();
        }
    }
}

fn take<S: AsRef<OsStr>>(
    ground: &Ground,
    node: &Node,
    metric: &str,
    arguments: impl IntoIterator<Item = S>,
    samples: &mut Samples,
) {
    let command = node.ctr(arguments);
    ground.settle();
    pass(REST);
    let before = processor_seconds(node.pid());
    let (ms, ()) = timed(|| well(command));
    let name = node.core.name();
    samples.push(metric, name, ms);
    let spent = processor_seconds(node.pid()) - before;
    samples.push(&format!("{metric}-cpu"), name, spent * 1e3);
}
