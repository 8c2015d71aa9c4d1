//! Memory of one shim over many execs.

use std::path::Path;
use std::time::Duration;

use crate::bed::Bed;

use super::options::Options;
use super::process::memory;
use super::rig::{OURS, Rig, Subject, pass};
use super::runtime::quickest;
use super::samples::Samples;

/// How long a shim is let alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);
/// Go's shims grow visibly over fewer.
const GO_SHARE: usize = 10;

/// Metric `growth`: private dirty kB after all execs less those of the same shim before the first;
/// `growth-warm` counts from after the first hundred. The execs of one shim run one after another,
/// under the quickest runtime, since the shim's memory does not depend on it; the shims run beside
/// each other, since it does not depend on load either.
pub fn measure(bed: &Bed, options: &Options, subjects: &[Subject], samples: &mut Samples) {
    let runtime = quickest(bed);
    let grown = std::thread::scope(|scope| {
        let start = |subject: &'_ Subject| {
            let execs = match subject.name {
                OURS => options.growth_execs(),
                _ => options.growth_execs() / GO_SHARE,
            };
            let (subject, runtime) = (subject.clone(), &runtime);
            scope.spawn(move || (subject.name, execs, grow(bed, &subject, runtime, execs)))
        };
        let all: Vec<_> = subjects.iter().map(start).collect();
        let joined = all
            .into_iter()
            .map(|one| one.join().expect("a shim that lives"));
        joined.collect::<Vec<_>>()
    });
    for (name, execs, [growth, warm]) in grown {
        samples.push("growth", name, growth);
        samples.push("growth-warm", name, warm);
        #[expect(clippy::cast_precision_loss, reason = "ten thousand")]
        samples.push("growth-execs", name, execs as f64);
    }
}

/// Kilobytes gained from before the first exec, and from after the first hundred.
fn grow(bed: &Bed, subject: &Subject, runtime: &Path, execs: usize) -> [f64; 2] {
    let id = format!("{}-growth", subject.name);
    let rig = Rig::running(bed, subject, runtime, &id);
    let settled = || {
        pass(SETTLE);
        memory(rig.pid).private_dirty
    };
    let cold = settled();
    let mut warm = cold;
    for n in 1..=execs {
        rig.exec(&format!("e{n}"));
        if n == 100 {
            warm = settled();
        }
        if n % 100 == 0 && subject.name == OURS {
            super::progress(n, execs);
        }
    }
    let end = settled();
    rig.end(subject);
    [end - cold, end - warm]
}
