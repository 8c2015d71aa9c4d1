//! What quiet shims hold: memory, threads, wake-ups; ten of each kind alive at once.

use std::fs::File;
use std::time::Duration;

use crate::bed::Bed;
use crate::host;

use super::process::{memory, switches};
use super::rig::{Rig, Subject, pass};
use super::runtime::usable;
use super::samples::Samples;

/// Shims of each kind.
const ALIVE: usize = 10;
/// How long they are let alone before the counting begins: Go's collector runs for a while.
const SETTLE: Duration = Duration::from_secs(2);
/// How long wake-ups are counted.
const QUIET: Duration = Duration::from_secs(10);

/// Metrics `private-dirty` and `resident` in kB, `threads`, and `switches` in ten seconds.
pub fn measure(bed: &Bed, subjects: &[Subject], samples: &mut Samples) {
    let (_, runtime) = usable(bed).remove(0);
    for subject in subjects {
        // Pages of a file that was just written are dirty, and would count as the shim's own.
        File::open(&subject.binary)
            .and_then(|file| file.sync_all())
            .expect("write the shim's binary to disk");
    }
    let all = ALIVE * subjects.len();
    let rigs: Vec<(Rig, &Subject)> = (0..all)
        .map(|n| {
            let subject = &subjects[n % subjects.len()];
            super::progress(n + 1, all);
            let rig = Rig::running(bed, subject, &runtime, &format!("{}-{n}", subject.name));
            (rig, subject)
        })
        .collect();
    pass(SETTLE);
    let before: Vec<f64> = rigs.iter().map(|(rig, _)| switches(rig.pid)).collect();
    pass(QUIET);
    for ((rig, subject), before) in rigs.iter().zip(before) {
        samples.push("switches", subject.name, switches(rig.pid) - before);
        let memory = memory(rig.pid);
        samples.push("private-dirty", subject.name, memory.private_dirty);
        samples.push("resident", subject.name, memory.resident);
        #[expect(clippy::cast_precision_loss, reason = "some ten threads")]
        samples.push("threads", subject.name, host::threads(rig.pid) as f64);
    }
    for (rig, subject) in &rigs {
        rig.end(subject);
    }
}
