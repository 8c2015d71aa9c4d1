//! Memory of one shim over many execs.

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
/// `growth-warm` counts from after the first hundred. The execs run one after another, under the
/// quickest runtime, since the shim's memory does not depend on it.
pub fn measure(bed: &Bed, options: &Options, subjects: &[Subject], samples: &mut Samples) {
    let runtime = quickest(bed);
    for subject in subjects {
        let execs = match subject.name {
            OURS => options.growth_execs(),
            _ => options.growth_execs() / GO_SHARE,
        };
        let id = format!("{}-growth", subject.name);
        let rig = Rig::running(bed, subject, &runtime, &id);
        pass(SETTLE);
        let cold = memory(rig.pid).private_dirty;
        let mut warm = cold;
        for n in 0..execs {
            rig.exec(&format!("e{n}"));
            if n + 1 == 100 {
                pass(SETTLE);
                warm = memory(rig.pid).private_dirty;
            }
            if (n + 1) % 100 == 0 {
                super::progress(n + 1, execs);
            }
        }
        pass(SETTLE);
        let end = memory(rig.pid).private_dirty;
        samples.push("growth", subject.name, end - cold);
        samples.push("growth-warm", subject.name, end - warm);
        #[expect(clippy::cast_precision_loss, reason = "ten thousand")]
        samples.push("growth-execs", subject.name, execs as f64);
        rig.end(subject);
    }
}
