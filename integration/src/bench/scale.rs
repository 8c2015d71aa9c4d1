//! What each of many idle containers costs, as there are more of them.

use std::time::Duration;

use crate::bed::Bed;
use crate::bundle::{Spec, make_rootfs};
use crate::host;

use super::hands;
use super::options::Options;
use super::process::{memory, switches};
use super::rig::{Rig, Subject, pass};
use super::runtime::quickest;
use super::samples::Samples;

/// How long shims are let alone before they are looked at.
const SETTLE: Duration = Duration::from_secs(2);
/// How long wake-ups are counted.
const QUIET: Duration = Duration::from_secs(5);

/// For each number N of containers alive: metrics `scale.pss-N` and `scale.private-N` in kB,
/// `scale.threads-N`, and `scale.switches-N` in five seconds, one value per shim. One kind of shims
/// after the other, since no machine is wanted that holds all of them at once.
pub fn measure(bed: &Bed, options: &Options, subjects: &[Subject], samples: &mut Samples) {
    let runtime = quickest(bed);
    let rootfs = bed.path("rootfs");
    make_rootfs(&rootfs);
    let spec = Spec::sleeper().rootfs(&rootfs);
    for subject in subjects {
        let mut rigs: Vec<Rig> = Vec::new();
        for &level in options.levels() {
            let made = hands::share(rigs.len()..level, |n| {
                let id = format!("{}-{n}", subject.name);
                Rig::quiet(bed, subject, &runtime, &id, &spec)
            });
            rigs.extend(made);
            super::progress(level, *options.levels().last().unwrap_or(&level));
            look(&rigs, subject, samples);
        }
        hands::share(&rigs, |rig| rig.end(subject));
    }
}

fn look(rigs: &[Rig], subject: &Subject, samples: &mut Samples) {
    pass(SETTLE);
    let before: Vec<f64> = rigs.iter().map(|rig| switches(rig.pid)).collect();
    pass(QUIET);
    let level = rigs.len();
    let mut push = |what: &str, value: f64| {
        samples.push(&format!("scale.{what}-{level}"), subject.name, value);
    };
    for (rig, before) in rigs.iter().zip(before) {
        push("switches", switches(rig.pid) - before);
        let memory = memory(rig.pid);
        push("pss", memory.proportional);
        push("private", memory.private_dirty);
        #[expect(clippy::cast_precision_loss, reason = "some ten threads")]
        push("threads", host::threads(rig.pid) as f64);
    }
}
