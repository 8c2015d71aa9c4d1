//! Shims killed at random moments of a container's life, and the `delete` action after each, as a
//! daemon runs it: nothing is left, and no event was told twice or out of order.

use std::thread;
use std::time::Duration;

use containerd_shim_protos::api::DeleteResponse;

use super::{Finding, Held, Progress};
use crate::bed::Bed;
use crate::bundle::{Bundle, Spec};
use crate::chance::Chance;
use crate::client::{CallError, TaskClient};
use crate::stdio::OutputFifo;
use crate::wait::{LONG, SHORT, eventually, holds};
use crate::{delete, host, target};

/// The calls of one life, in order; a kill falls into one of them, or after it.
const CALLS: u64 = 11;
/// How far into a call the kill may come: as long as the slowest of them takes.
const INTO: u64 = 60_000;

/// What a life tells, if it is not cut off.
const LIFE: [&str; 8] = [
    "create c1",
    "start c1",
    "exec-added c1/e1",
    "exec-started c1/e1",
    "paused c1",
    "resumed c1",
    "exit c1/e1 137",
    "exit c1 137",
];

pub(super) fn kills(count: usize, progress: Progress<'_>) -> Finding {
    let mut chance = Chance::new();
    for n in 0..count {
        let (call, micros) = (chance.below(CALLS), chance.below(INTO));
        let shared = chance.below(3) == 0 && !target::under_test_is_v1();
        one(call, Duration::from_micros(micros), shared);
        progress(n + 1, count);
    }
    Finding {
        what: format!("{count} shims killed (seed {})", chance.seed),
        shims: 0,
        before: Held::default(),
        after: Held::default(),
    }
}

/// One life, whose shim is killed so far into the call of this number; a `shared` shim has a
/// second container, which runs by then.
fn one(call: u64, into: Duration, shared: bool) {
    println!("killed {into:?} into call {call}, shared {shared}");
    let bed = Bed::new();
    let mut spec = Spec::sleeper();
    if shared {
        bed.note_group("pod");
        spec = spec.annotation("io.containerd.runc.v2.group", "pod");
    }
    let (bundle, shim) = bed.shim("c1", &spec);
    let mut bundles = vec![bundle.clone()];
    if shared {
        let other = bed.bundle("c2", &spec);
        shim.task.create(&other.create()).expect("Create");
        shim.task.start("c2", "").expect("Start");
        bundles.push(other);
    }
    let outputs = ["out", "err", "tty"].map(|name| OutputFifo::read(&bed.fifo(name)));
    let paths = outputs.each_ref().map(OutputFifo::path);
    // The calls before the chosen one are answered; it is itself under way when the kill comes.
    for n in 0..call {
        if let Err(error) = step(n, &shim.task, &bundle, &paths) {
            panic!("call {n}, before the kill: {error}");
        }
    }
    let client = shim.task.another();
    let pending = client.spawn(move |task| step(call, task, &bundle, &paths));
    // A moment of its own, and not the wait for anything.
    holds(into, || false);
    shim.kill();
    let answer = pending.join().expect("the client");
    assert!(
        !matches!(answer, Err(CallError::Timeout)),
        "the end of the shim ends its calls"
    );
    let own = i32::try_from(std::process::id()).expect("a pid");
    for bundle in &bundles {
        let deleted = delete(&bed, bundle, own);
        assert_eq!(deleted.exit_status, 137, "{deleted:?}");
        bed.discard(bundle);
    }
    eventually(SHORT, "no runtime is left", || {
        host::children(own)
            .into_iter()
            .filter(|pid| host::alive(*pid))
            .all(|pid| !host::cmdline(pid).iter().any(|arg| arg == "init"))
    });
    bed.assert_clean();
    let told = bed.sink().briefs_of("c1");
    assert!(
        told.len() <= LIFE.len() + 1 && told.iter().zip(LIFE).all(|(got, wanted)| got == wanted),
        "killed {into:?} into call {call}: {told:?}"
    );
    if let Some(last) = told.get(LIFE.len()) {
        assert_eq!(last, "delete c1 137");
    }
}

/// The `delete` action, while the orphans of the shim are collected, as a machine's first process
/// does: a container's init is not gone before every exec of it is collected.
fn delete(bed: &Bed, bundle: &Bundle, own: i32) -> DeleteResponse {
    let action = delete::start(&bed.start_request(bundle));
    let pid = i32::try_from(action.id()).expect("a pid");
    thread::scope(|scope| {
        let outcome = scope.spawn(|| delete::finish(action));
        holds(LONG, || {
            for orphan in host::children(own).into_iter().filter(|c| *c != pid) {
                // The look collects it, if it has ended.
                host::alive(orphan);
            }
            outcome.is_finished()
        });
        outcome.join().expect("the action").response()
    })
}

/// One call of a container's life.
fn step(n: u64, task: &TaskClient, bundle: &Bundle, paths: &[String; 3]) -> Result<(), CallError> {
    let [out, err, tty] = paths;
    match n {
        0 => task.create(&bundle.create_with("", out, err)).map(drop),
        1 => task.start("c1", "").map(drop),
        2 => {
            let spec = Spec::sleeper().terminal();
            let mut request = bundle.exec_spec("e1", &spec);
            request.stdout.clone_from(tty);
            task.exec(&request).map(drop)
        }
        3 => task.start("c1", "e1").map(drop),
        4 => task.pause("c1").map(drop),
        5 => task.resume("c1").map(drop),
        6 => task.kill("c1", "e1", 9, false).map(drop),
        7 => task.wait("c1", "e1").map(drop),
        8 => task.kill("c1", "", 9, false).map(drop),
        9 => task.wait("c1", "").map(drop),
        _ => task.delete("c1", "").map(drop),
    }
}
