//! Containers by Debian's unmodified `ctr`, one after another and many at once, on each daemon
//! with each kind of shims.

use std::sync::Barrier;

use crate::e2e::{LONG, Output, Running, run};

use super::super::options::Options;
use super::super::rig::{REST, pass, timed};
use super::super::samples::Samples;
use super::node::{Core, Node, Shims};
use super::pair;

/// How many containers are started at once.
const STORM: usize = 50;

/// Metric `daemon.run`: milliseconds of `ctr run --rm --rootfs` of `true`, from start to end of the
/// client.
pub(super) fn one_by_one(options: &Options, cores: &[Core], samples: &mut Samples) {
    let nodes = every_pair(cores);
    // The first round warms caches.
    let all = options.daemon_rounds() + 1;
    for round in 0..all {
        super::super::progress(round + 1, all);
        for turn in 0..nodes.len() {
            let (node, name) = &nodes[(turn + round) % nodes.len()];
            let command = node.run(&["--rm"], &format!("r{round}"), &["true"]);
            pass(REST);
            let (ms, output) = timed(|| run(command));
            let _: Output = output.ok();
            if round > 0 {
                samples.push("daemon.run", name, ms);
            }
        }
    }
}

/// Metric `daemon.storm-50`: milliseconds from the start of 50 clients at once, each with a container
/// of its own, until the last has returned and its container runs.
pub(super) fn at_once(options: &Options, cores: &[Core], samples: &mut Samples) {
    let nodes = every_pair(cores);
    let all = options.daemon_storms();
    for round in 0..all {
        for turn in 0..nodes.len() {
            super::super::progress(round * nodes.len() + turn + 1, all * nodes.len());
            let (node, name) = &nodes[(turn + round) % nodes.len()];
            let ids: Vec<String> = (0..STORM).map(|n| format!("s{round}-{n}")).collect();
            pass(REST);
            samples.push("daemon.storm-50", name, storm(node, &ids));
            node.remove(&ids);
        }
    }
}

fn storm(node: &Node, ids: &[String]) -> f64 {
    let go = Barrier::new(ids.len() + 1);
    std::thread::scope(|scope| {
        let clients: Vec<_> = ids
            .iter()
            .map(|id| {
                let command = node.run(&["-d"], id, &["sleep", "1000"]);
                let go = &go;
                scope.spawn(move || {
                    go.wait();
                    let _: Output = Running::start(command).wait(4 * LONG).ok();
                })
            })
            .collect();
        let (ms, ()) = timed(|| {
            go.wait();
            for client in clients {
                client.join().expect("a client ends well");
            }
        });
        ms
    })
}

fn every_pair(cores: &[Core]) -> Vec<(Node, String)> {
    let pairs = cores
        .iter()
        .flat_map(|core| Shims::ALL.map(|shims| (*core, shims)));
    pairs
        .map(|(core, shims)| (Node::serving(core, shims), pair(core, shims)))
        .collect()
}
