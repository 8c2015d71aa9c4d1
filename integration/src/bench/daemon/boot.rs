//! From exec to serving, and what a daemon holds that has nothing to do.

use std::time::Duration;

use crate::host;

use super::super::options::Options;
use super::super::process::switches;
use super::super::rig::pass;
use super::super::samples::Samples;
use super::node::{self, Core, Node, Shims};

/// How long a daemon is let alone before it is looked at: Go's collector runs for a while.
const SETTLE: Duration = Duration::from_secs(2);
/// How long wake-ups are counted.
const QUIET: Duration = Duration::from_secs(10);

/// Metric `daemon.boot` in milliseconds, on folders of an earlier start; and of a daemon that has
/// served one call and rested, `daemon.resident` and `daemon.private` in kB, `daemon.threads`,
/// and `daemon.switches` in ten seconds.
pub(super) fn measure(options: &Options, cores: &[Core], samples: &mut Samples) {
    let mut nodes: Vec<Node> = cores.iter().map(|c| Node::new(*c, Shims::Ours)).collect();
    for core in cores {
        node::settle_binary(&core.program().expect("the daemon is here"));
    }
    // The first start makes the folders and databases.
    let all = options.boots() + 1;
    let count = nodes.len();
    for round in 0..all {
        super::super::progress(round + 1, all);
        for turn in 0..count {
            let node = &mut nodes[(turn + round) % count];
            let ms = node.start();
            if round > 0 {
                samples.push("daemon.boot", node.core.name(), ms);
            }
            if round + 1 < all {
                node.stop();
            }
        }
    }
    pass(SETTLE);
    let before: Vec<f64> = nodes.iter().map(|node| switches(node.pid())).collect();
    pass(QUIET);
    for (node, before) in nodes.iter().zip(before) {
        let name = node.core.name();
        samples.push("daemon.switches", name, switches(node.pid()) - before);
        samples.push("daemon.resident", name, node.memory().resident);
        samples.push("daemon.private", name, node.memory().private_dirty);
        #[expect(clippy::cast_precision_loss, reason = "some ten threads")]
        samples.push("daemon.threads", name, host::threads(node.pid()) as f64);
    }
}
