//! A daemon that is away for seconds, hangs, or refuses one kind of event: what it gets in the
//! end is everything, once, in order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::time::Instant;

use wherry_integration::prelude::*;
use wherry_integration::sink::Mood;

/// How long the daemon is away; containerd's own restart takes about as long.
const AWAY: Duration = Duration::from_secs(5);

/// Makes 300 events: 280 of processes that are only added, 20 of pauses; their briefs in order.
fn three_hundred(bundle: &Bundle, task: &TaskClient) -> Vec<String> {
    let mut expected = Vec::new();
    for round in 0..10 {
        for n in 0..28 {
            let id = format!("e{round}-{n}");
            task.exec(&bundle.exec(&id, &["true"])).unwrap();
            expected.push(format!("exec-added c1/{id}"));
        }
        task.pause("c1").unwrap();
        task.resume("c1").unwrap();
        expected.push("paused c1".to_owned());
        expected.push("resumed c1".to_owned());
    }
    assert_eq!(expected.len(), 300);
    expected
}

/// Fails unless the sink took exactly `expected` after the container's create and start.
#[track_caller]
fn came_once_in_order(bed: &Bed, expected: &[String]) {
    let briefs = bed.sink().briefs();
    assert_eq!(briefs[..2], ["create c1", "start c1"]);
    assert_eq!(briefs[2..], *expected);
    let added: Vec<_> = bed
        .sink()
        .events()
        .into_iter()
        .filter(|e| e.topic == "/tasks/exec-added")
        .collect();
    let contents: BTreeSet<_> = added.iter().map(|e| e.bytes.clone()).collect();
    assert_eq!(contents.len(), added.len(), "no content came twice");
}

#[test]
fn three_hundred_events_of_a_five_second_outage_come_once_and_in_order() {
    known_difference!("go", "Go's calls hang once 128 events wait for the daemon");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    bed.sink().wait_brief("start c1");
    bed.sink().go_away();
    let mut expected = three_hundred(&bundle, &shim.task);
    assert!(!holds(AWAY, || !shim.alive()));
    shim.task.kill("c1", "", 9, false).unwrap();
    shim.task.wait("c1", "").unwrap();
    expected.push("exit c1 137".to_owned());
    bed.sink().come_back();
    let exit = bed.sink().wait_brief("exit c1 137");
    came_once_in_order(&bed, &expected);
    assert!(exit.stamped.is_some());
    bed.finish(&bundle, &shim);
}

#[test]
fn three_hundred_events_behind_a_sink_that_never_answers_come_once_it_does() {
    known_difference!(
        "go",
        "Go drops what a hung sink has swallowed, and reorders the rest"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    bed.sink().wait_brief("start c1");
    bed.sink().set_mood(Mood::Hang);
    let began = Instant::now();
    let expected = three_hundred(&bundle, &shim.task);
    let hung = bed.sink().refused().len();
    // A call that is not answered ends after five seconds.
    let ended = usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    assert!(hung <= 2 + ended, "one at a time: {hung} after {ended}");
    // The sink lives on: only its answers were missing. The hung call ends by its own limit.
    bed.sink().set_mood(Mood::Take);
    let last = expected.len() + 2;
    eventually(LONG, "all of them", || bed.sink().briefs().len() >= last);
    came_once_in_order(&bed, &expected);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_topic_that_is_refused_costs_no_other_event() {
    known_difference!("go", "Go retries refused events, behind the later ones");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    bed.sink().wait_brief("start c1");
    bed.sink()
        .set_mood(Mood::RefuseTopic("/tasks/exec-added", Code::UNKNOWN));
    let mut expected = three_hundred(&bundle, &shim.task);
    expected.retain(|b| !b.starts_with("exec-added"));
    let last = expected.len() + 2;
    eventually(LONG, "the others", || bed.sink().briefs().len() >= last);
    came_once_in_order(&bed, &expected);
    assert_eq!(
        bed.sink().refused().len(),
        280,
        "each refused once, none tried again"
    );
    eventually(SHORT, "the log says what was refused", || {
        shim.log().contains("/tasks/exec-added")
    });
    bed.finish(&bundle, &shim);
}
