//! Execs in pairs: one through the shim, one of the bare runtime right beside it.

use crate::bed::Bed;
use crate::bundle::Spec;

use super::options::Options;
use super::rig::{Rig, Subject, timed};
use super::runtime::{Bare, usable};
use super::samples::Samples;

/// Times the pairs: metric `RUNTIME.exec-added`, milliseconds of Exec and Start through the shim
/// less those of `RUNTIME exec --detach`.
pub fn measure(bed: &Bed, options: &Options, subjects: &[Subject], samples: &mut Samples) {
    for (name, runtime) in usable(bed) {
        let bare = Bare::new(bed, &runtime, &format!("bare-{name}"), &Spec::sleeper());
        bare.create();
        bare.run(&["start", &bare.bundle.id]);
        let rigs: Vec<_> = subjects
            .iter()
            .map(|s| Rig::running(bed, s, &runtime, &format!("{}-{name}", s.name)))
            .collect();
        let all = options.exec_rounds();
        for round in 0..all {
            super::progress(round + 1, all);
            for turn in 0..subjects.len() {
                let turn = (turn + round) % subjects.len();
                let id = format!("e{round}-{turn}");
                let alone = || {
                    let (ms, ()) = timed(|| bare.exec(&id));
                    bare.collect(&format!("{id}.pid"));
                    ms
                };
                // Who goes first changes, since the second finds warmer caches.
                let added = if round % 2 == 0 {
                    let shim = rigs[turn].exec(&id);
                    shim - alone()
                } else {
                    let alone = alone();
                    rigs[turn].exec(&id) - alone
                };
                samples.push(&format!("{name}.exec-added"), subjects[turn].name, added);
            }
        }
        for (rig, subject) in rigs.iter().zip(subjects) {
            rig.end(subject);
        }
        bare.end();
    }
}
