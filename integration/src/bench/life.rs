//! A container's whole life, step by step, under each shim and under the bare runtime.

use std::path::Path;

use crate::bed::Bed;
use crate::bundle::Spec;

use super::options::Options;
use super::rig::{BARE, REST, Rig, Subject, pass, timed};
use super::runtime::{Bare, usable};
use super::samples::Samples;

/// Times the lives: metrics `RUNTIME.life`, `RUNTIME.life-added` and one per step, in milliseconds.
///
/// A life is: start action, Create, Start, an exec of `true` to its end, Kill and the wait for the
/// end, Delete, `delete` action. `life-added` is the difference to the bare runtime's life of the
/// same round. Standard streams are null, which is the same for both. Shutdown is not timed: nobody
/// waits for it.
pub fn measure(bed: &Bed, options: &Options, subjects: &[Subject], samples: &mut Samples) {
    let runtimes = usable(bed);
    // The first round of each warms caches and is not counted.
    let all = options.life_rounds() + 1;
    for round in 0..all {
        super::progress(round + 1, all);
        let mut warm_up = Samples::default();
        let kept = if round == 0 {
            &mut warm_up
        } else {
            &mut *samples
        };
        for (name, path) in &runtimes {
            let mut totals = Vec::new();
            // Another one begins in each round, and each second round goes backwards: what one
            // leaves the kernel to clear up does not always meet the same other.
            for turn in 0..=subjects.len() {
                let step = if round % 2 == 0 {
                    turn
                } else {
                    subjects.len() - turn
                };
                let turn = (step + round) % (subjects.len() + 1);
                match subjects.get(turn) {
                    Some(subject) => {
                        let id = format!("{}-{name}-{round}", subject.name);
                        let steps = shim_life(bed, subject, path, &id);
                        totals.push((subject.name, record(kept, name, subject.name, &steps)));
                    }
                    None => {
                        let steps = bare_life(bed, path, &format!("bare-{name}-{round}"));
                        totals.push((BARE, record(kept, name, BARE, &steps)));
                    }
                }
            }
            let bare = totals.iter().find(|(subject, _)| *subject == BARE);
            let bare = bare.expect("the bare runtime was timed").1;
            for (subject, total) in totals.iter().filter(|(subject, _)| *subject != BARE) {
                kept.push(&format!("{name}.life-added"), subject, total - bare);
            }
        }
    }
    for (name, _) in &runtimes {
        add_up(name, subjects, samples);
    }
}

/// Metric `RUNTIME.added`: what the shim adds, step by step, each by its median. A life of a tenth
/// of a second on a busy machine seldom passes without somebody else's work in one of its steps;
/// the medians of the steps leave that out, for all alike.
fn add_up(runtime: &str, subjects: &[Subject], samples: &mut Samples) {
    for subject in subjects {
        let added = STEPS.iter().filter_map(|(step, _)| {
            let metric = format!("{runtime}.{step}");
            let bare = samples.median(&metric, BARE).unwrap_or(0.0);
            Some(samples.median(&metric, subject.name)? - bare)
        });
        let added = added.sum();
        samples.push(&format!("{runtime}.added"), subject.name, added);
    }
}

/// The steps of a life, with their names for people; the bare runtime has no use for the first and
/// the last.
pub(super) const STEPS: [(&str, &str); 8] = [
    ("start-action", "start action"),
    ("create", "Create"),
    ("start", "Start"),
    ("exec", "exec of true"),
    ("kill", "Kill"),
    ("gone", "until its end"),
    ("delete", "Delete"),
    ("delete-action", "delete action"),
];

type Steps = Vec<(&'static str, f64)>;

/// Keeps the steps and gives their sum.
fn record(samples: &mut Samples, runtime: &str, subject: &str, steps: &Steps) -> f64 {
    let total = steps.iter().map(|(_, ms)| ms).sum();
    for (step, ms) in steps {
        samples.push(&format!("{runtime}.{step}"), subject, *ms);
    }
    samples.push(&format!("{runtime}.life"), subject, total);
    total
}

fn shim_life(bed: &Bed, subject: &Subject, runtime: &Path, id: &str) -> Steps {
    let rig = Rig::start(bed, subject, runtime, id, &Spec::sleeper());
    let task = &rig.task;
    let mut steps = vec![("start-action", rig.start_ms)];
    let mut step = |name, ms| steps.push((name, ms));
    let create = rig.bundle.create();
    step("create", timed(|| task.create(&create).expect("Create")).0);
    step("start", timed(|| task.start(id, "").expect("Start")).0);
    let exec = rig.bundle.exec("e", &["true"]);
    let (ms, ()) = timed(|| {
        task.exec(&exec).expect("Exec");
        task.start(id, "e").expect("Start of an exec");
        task.wait(id, "e").expect("Wait of an exec");
        task.delete(id, "e").expect("Delete of an exec");
    });
    step("exec", ms);
    step(
        "kill",
        timed(|| task.kill(id, "", 9, false).expect("Kill")).0,
    );
    step("gone", timed(|| task.wait(id, "").expect("Wait")).0);
    step("delete", timed(|| task.delete(id, "").expect("Delete")).0);
    rig.shut();
    step("delete-action", rig.remove(subject));
    steps
}

fn bare_life(bed: &Bed, runtime: &Path, id: &str) -> Steps {
    let bare = Bare::new(bed, runtime, id, &Spec::sleeper());
    pass(REST);
    let steps = vec![
        ("create", timed(|| bare.create()).0),
        ("start", timed(|| bare.run(&["start", id])).0),
        (
            "exec",
            timed(|| {
                bare.exec("e");
                bare.collect("e.pid");
            })
            .0,
        ),
        ("kill", timed(|| bare.run(&["kill", id, "9"])).0),
        ("gone", timed(|| bare.collect("init.pid")).0),
        ("delete", timed(|| bare.run(&["delete", id])).0),
    ];
    std::fs::remove_dir_all(&bare.bundle.path).expect("remove the bundle");
    steps
}
