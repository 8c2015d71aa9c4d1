//! Storms: many containers from nothing to running, all asked for at once.

use std::path::Path;
use std::sync::Barrier;

use crate::bed::Bed;
use crate::bundle::{Spec, make_rootfs};

use super::hands;
use super::options::Options;
use super::rig::{BARE, Prepared, REST, Subject, pass, timed};
use super::runtime::{Bare, usable};
use super::samples::Samples;

/// Metric `RUNTIME.storm-N`: milliseconds until the last of N containers runs, each with a client
/// of its own. Under a shim that is its start action, Create and Start; bare it is the runtime's
/// `create` and `start`.
pub fn measure(bed: &Bed, options: &Options, subjects: &[Subject], samples: &mut Samples) {
    let rootfs = bed.path("rootfs");
    make_rootfs(&rootfs);
    let spec = Spec::sleeper().rootfs(&rootfs);
    let runtimes = usable(bed);
    let sizes = options.storms();
    let all: usize = sizes
        .iter()
        .map(|(_, rounds)| rounds * runtimes.len())
        .sum();
    let mut done = 0;
    for (name, runtime) in &runtimes {
        for (count, rounds) in sizes {
            let metric = format!("{name}.storm-{count}");
            for round in 0..*rounds {
                for turn in 0..=subjects.len() {
                    let turn = (turn + round) % (subjects.len() + 1);
                    let subject = subjects.get(turn);
                    let whose = subject.map_or(BARE, |s| s.name);
                    let id = |n| format!("{whose}-{name}-{count}-{round}-{n}");
                    let ids: Vec<String> = (0..*count).map(id).collect();
                    let ms = match subject {
                        Some(subject) => shims(bed, subject, runtime, &ids, &spec),
                        None => bare(bed, runtime, &ids, &spec),
                    };
                    samples.push(&metric, whose, ms);
                }
                done += 1;
                super::progress(done, all);
            }
        }
    }
}

fn shims(bed: &Bed, subject: &Subject, runtime: &Path, ids: &[String], spec: &Spec) -> f64 {
    let prepare = |id: &String| Prepared::new(bed, subject, runtime, id, spec);
    let (ms, rigs) = at_once(ids.iter().map(prepare).collect(), |prepared| {
        let rig = prepared.start();
        rig.task.create(&rig.bundle.create()).expect("Create");
        rig.task.start(rig.id(), "").expect("Start");
        rig
    });
    hands::share(&rigs, |rig| rig.end(subject));
    ms
}

fn bare(bed: &Bed, runtime: &Path, ids: &[String], spec: &Spec) -> f64 {
    let prepare = |id: &String| Bare::new(bed, runtime, id, spec);
    let (ms, all) = at_once(ids.iter().map(prepare).collect(), |bare| {
        bare.create();
        bare.run(&["start", &bare.bundle.id]);
        bare
    });
    all.iter().for_each(Bare::end);
    ms
}

/// Does `work` for all of them at once; milliseconds until the last is done.
fn at_once<P: Send, R: Send>(all: Vec<P>, work: impl Fn(P) -> R + Sync) -> (f64, Vec<R>) {
    let go = Barrier::new(all.len() + 1);
    std::thread::scope(|scope| {
        let (go, work) = (&go, &work);
        let client = |one| {
            scope.spawn(move || {
                go.wait();
                work(one)
            })
        };
        let clients: Vec<_> = all.into_iter().map(client).collect();
        pass(REST);
        timed(|| {
            go.wait();
            let joined = clients.into_iter().map(|c| c.join().expect("a client"));
            joined.collect()
        })
    })
}
