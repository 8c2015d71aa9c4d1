//! Many processes and containers one after the other in one shim.

use super::{Finding, Held, Progress};
use crate::bed::Bed;
use crate::bundle::{Bundle, Spec};
use crate::shim::Shim;
use crate::wait::{LONG, eventually};

/// How many come first, so that buffers have their size and the remembered ids are as many as
/// they ever get (the shim keeps the last 64).
const WARM_UP: usize = 100;

pub(super) fn execs(count: usize, progress: Progress<'_>) -> Finding {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    (0..WARM_UP).for_each(|n| exec(&bundle, &shim, &format!("w{n}")));
    let before = Held::by(&[shim.pid]);
    for n in 0..count {
        exec(&bundle, &shim, &format!("e{n}"));
        progress(n + 1, count);
    }
    let after = Held::settled(&[shim.pid], before);
    let wanted = WARM_UP + count;
    let told = |prefix: &str| {
        let all = bed.sink().briefs();
        all.iter().filter(|b| b.starts_with(prefix)).count()
    };
    eventually(LONG, "an exit for each exec", || told("exit c1/") >= wanted);
    assert_eq!(
        (told("exec-added c1/"), told("exec-started c1/")),
        (wanted, wanted)
    );
    assert_eq!(told("exit c1/"), wanted, "no exit twice");
    bed.finish(&bundle, &shim);
    Finding {
        what: format!("{count} execs on one container"),
        shims: 1,
        before,
        after,
    }
}

fn exec(bundle: &Bundle, shim: &Shim, id: &str) {
    shim.task.exec(&bundle.exec(id, &["true"])).expect("Exec");
    shim.task.start("c1", id).expect("Start");
    assert_eq!(shim.task.wait("c1", id).expect("Wait").exit_status, 0);
    shim.task.delete("c1", id).expect("Delete");
}

pub(super) fn cycles(count: usize, progress: Progress<'_>) -> Finding {
    let bed = Bed::new();
    bed.note_group("pod");
    let group = |spec: Spec| spec.annotation("io.containerd.runc.v2.group", "pod");
    let (first, shim) = bed.running("c0", &group(Spec::sleeper()));
    let cycle = |id: String| {
        let bundle = bed.bundle(&id, &group(Spec::sh("exit 3")));
        shim.task.create(&bundle.create()).expect("Create");
        shim.task.start(&id, "").expect("Start");
        assert_eq!(shim.task.wait(&id, "").expect("Wait").exit_status, 3);
        assert_eq!(shim.task.delete(&id, "").expect("Delete").exit_status, 3);
        bed.discard(&bundle);
    };
    (0..WARM_UP.min(count.max(10))).for_each(|n| cycle(format!("w{n}")));
    let before = Held::by(&[shim.pid]);
    for n in 0..count {
        cycle(format!("e{n}"));
        progress(n + 1, count);
    }
    let after = Held::settled(&[shim.pid], before);
    let last = format!("e{}", count.saturating_sub(1));
    bed.sink().wait_brief(&format!("delete {last} 3"));
    bed.end(&first, &shim);
    bed.remove(&first);
    bed.assert_clean();
    Finding {
        what: format!("{count} create/delete cycles"),
        shims: 1,
        before,
        after,
    }
}
