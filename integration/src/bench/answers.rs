//! How a shim answers while it is busy: State calls about one container while another is created
//! in the same shim.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::bed::Bed;
use crate::bundle::Spec;

use super::options::Options;
use super::rig::{GO_V1, REST, Rig, Subject, pass, timed};
use super::runtime::usable;
use super::samples::Samples;

/// The annotation that puts containers into one shim.
const GROUP: &str = "io.containerd.runc.v2.group";

/// Metrics `state-rate`, calls per second from the start of a Create to its answer, and
/// `state-wait`, milliseconds of the longest of these calls. The v1 flavour has one container in a
/// shim and is left out.
pub fn measure(bed: &Bed, options: &Options, subjects: &[Subject], samples: &mut Samples) {
    let (_, runtime) = usable(bed).remove(0);
    let grouped: Vec<&Subject> = subjects.iter().filter(|s| s.name != GO_V1).collect();
    let rigs: Vec<(Rig, Spec, &Subject)> = grouped
        .into_iter()
        .map(|subject| {
            let group = format!("{}-group", subject.name);
            bed.note_group(&group);
            let spec = Spec::sleeper().annotation(GROUP, &group);
            let rig = Rig::start(
                bed,
                subject,
                &runtime,
                &format!("{}-a", subject.name),
                &spec,
            );
            rig.task.create(&rig.bundle.create()).expect("Create");
            rig.task.start(rig.id(), "").expect("Start");
            (rig, spec, subject)
        })
        .collect();
    let all = options.creates();
    for round in 0..all {
        super::progress(round + 1, all);
        for turn in 0..rigs.len() {
            let (rig, spec, subject) = &rigs[(turn + round) % rigs.len()];
            let mut bundle = bed.bundle(&format!("{}-b{round}", subject.name), spec);
            bundle.options.binary_name = runtime.display().to_string();
            pass(REST);
            let done = AtomicBool::new(false);
            let (ms, waits) = std::thread::scope(|scope| {
                let asking = scope.spawn(|| {
                    let mut waits = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let state = || rig.task.state(rig.id(), "").expect("State");
                        waits.push(timed(state).0);
                    }
                    waits
                });
                let create = || rig.task.create(&bundle.create()).expect("Create");
                let (ms, _) = timed(create);
                done.store(true, Ordering::Relaxed);
                (ms, asking.join().expect("the asking client"))
            });
            // The last call began before the Create ended, and may have been answered after it.
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            let answered = waits.len() as f64;
            samples.push("state-rate", subject.name, answered / ms * 1e3);
            let longest = waits.into_iter().fold(0.0, f64::max);
            samples.push("state-wait", subject.name, longest);
            rig.task
                .delete(&bundle.id, "")
                .expect("Delete of a created container");
            bed.discard(&bundle);
        }
    }
    for (rig, _, subject) in &rigs {
        rig.end(subject);
    }
}
