//! What many idle containers cost the daemon itself.

use std::time::Duration;

use crate::host;

use super::super::hands;
use super::super::options::Options;
use super::super::process::switches;
use super::super::rig::pass;
use super::super::runtime;
use super::super::samples::Samples;
use super::node::{Core, Node, Shims, well};
use super::pair;

/// How long a daemon is let alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// How long wake-ups are counted.
const QUIET: Duration = Duration::from_secs(5);

/// Each daemon with its own shims and `options.herd()` idle containers: metric
/// `daemon.per-container`, private dirty kB more than before the first container, for each; and
/// `daemon.herd-threads` and `daemon.herd-switches` (in five seconds) of the whole daemon.
pub(super) fn measure(options: &Options, cores: &[Core], samples: &mut Samples) {
    let count = options.herd();
    let quickest = runtime::quickest(&crate::bed::Bed::new());
    let quickest = quickest.display().to_string();
    for core in cores {
        let shims = match core {
            Core::Wherryd => Shims::Ours,
            Core::Containerd => Shims::Go,
        };
        let name = pair(*core, shims);
        let node = Node::serving(*core, shims);
        pass(SETTLE);
        let before = node.memory().private_dirty;
        let ids: Vec<String> = (0..count).map(|n| format!("h{n}")).collect();
        let flags = ["-d", "--runc-binary", &quickest];
        let runs = ids
            .iter()
            .map(|id| node.run(&flags, id, &["sleep", "1000"]));
        hands::share(runs, well);
        pass(SETTLE);
        let waked = switches(node.pid());
        pass(QUIET);
        let waked = switches(node.pid()) - waked;
        let more = node.memory().private_dirty - before;
        #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
        let (each, threads) = (more / count as f64, host::threads(node.pid()) as f64);
        samples.push("daemon.per-container", &name, each);
        samples.push("daemon.herd-threads", &name, threads);
        samples.push("daemon.herd-switches", &name, waked);
        node.remove(&ids);
    }
}
