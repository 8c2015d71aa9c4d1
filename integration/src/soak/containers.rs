//! Many containers alive at once, in a shim each or in one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Finding, Held, Progress};
use crate::bed::Bed;
use crate::bundle::{Bundle, Spec};
use crate::shim::Shim;
use crate::wait::{LONG, eventually};

/// How many clients work at once: as a daemon under load does.
const CLIENTS: usize = 4;
/// How often many containers come and go in one shim before it is measured, and then again.
const ROUNDS: usize = 3;

pub(super) fn separate(count: usize, progress: Progress<'_>) -> Finding {
    let bed = Bed::new();
    let made = AtomicUsize::new(0);
    let bed_ref = &bed;
    let make = |n: usize| {
        let running = bed_ref.running(&format!("c{n}"), &Spec::sleeper());
        progress(made.fetch_add(1, Ordering::Relaxed) + 1, count);
        running
    };
    let make = &make;
    let all: Vec<(Bundle, Shim)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|w| scope.spawn(move || (w..count).step_by(CLIENTS).map(make).collect::<Vec<_>>()))
            .collect();
        workers
            .into_iter()
            .flat_map(|w| w.join().expect("a client"))
            .collect()
    });
    let pids: Vec<i32> = all.iter().map(|(_, shim)| shim.pid).collect();
    // The first calls leave buffers behind; from here on nothing may.
    ask_all(&all);
    let before = Held::by(&pids);
    (0..5).for_each(|_| ask_all(&all));
    let after = Held::settled(&pids, before);
    for (bundle, shim) in &all {
        bed.end(bundle, shim);
        bed.remove(bundle);
        told_in_order(&bed, &bundle.id);
    }
    bed.assert_clean();
    Finding {
        what: format!("{count} containers in as many shims"),
        shims: u64::try_from(count).expect("a number of shims"),
        before,
        after,
    }
}

/// Calls every shim in turn, as a daemon that watches over them does.
fn ask_all(all: &[(Bundle, Shim)]) {
    for (bundle, shim) in all {
        shim.task.state(&bundle.id, "").expect("State");
        shim.task.stats(&bundle.id).expect("Stats");
        assert_eq!(shim.task.pids(&bundle.id).expect("Pids").processes.len(), 1);
    }
}

pub(super) fn grouped(count: usize, progress: Progress<'_>) -> Finding {
    let bed = Bed::new();
    bed.note_group("pod");
    let spec = Spec::sleeper().annotation("io.containerd.runc.v2.group", "pod");
    let (first, shim) = bed.running("c0", &spec);
    // As many come and go some times before: the heap then has the room that they need, and has
    // been cut up as it will stay.
    let more = count.saturating_sub(1).max(1);
    let rounds = |names: [&str; ROUNDS], gone: usize| {
        for (number, name) in names.into_iter().enumerate() {
            round(&bed, &shim, &spec, name, more, &|done, _| {
                progress((gone + number) * more + done, 2 * ROUNDS * more);
            });
        }
    };
    rounds(["u", "v", "w"], 0);
    let before = Held::by(&[shim.pid]);
    rounds(["c", "d", "e"], ROUNDS);
    let after = Held::settled(&[shim.pid], before);
    bed.end(&first, &shim);
    bed.remove(&first);
    bed.assert_clean();
    Finding {
        what: format!("{count} containers in one shim, three times after three"),
        shims: 1,
        before,
        after,
    }
}

/// `count` containers more in a running shim, all alive at once, then all gone.
fn round(bed: &Bed, shim: &Shim, spec: &Spec, prefix: &str, count: usize, progress: Progress<'_>) {
    let ids: Vec<String> = (1..=count).map(|n| format!("{prefix}{n}")).collect();
    let mut bundles = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let bundle = bed.bundle(id, spec);
        shim.task.create(&bundle.create()).expect("Create");
        shim.task.start(id, "").expect("Start");
        bundles.push(bundle);
        progress(n + 1, count);
    }
    for bundle in &bundles {
        shim.task.kill(&bundle.id, "", 9, false).expect("Kill");
    }
    for bundle in &bundles {
        assert_eq!(
            shim.task.wait(&bundle.id, "").expect("Wait").exit_status,
            137
        );
        shim.task.delete(&bundle.id, "").expect("Delete");
        bed.discard(bundle);
        told_in_order(bed, &bundle.id);
    }
}

/// Each event of a killed container's life came once and in order.
fn told_in_order(bed: &Bed, id: &str) {
    let told = || bed.sink().briefs_of(id);
    let last = format!("delete {id} 137");
    eventually(LONG, "the last event", || told().last() == Some(&last));
    let whole = [
        format!("create {id}"),
        format!("start {id}"),
        format!("exit {id} 137"),
        last,
    ];
    assert_eq!(told(), whole);
}
