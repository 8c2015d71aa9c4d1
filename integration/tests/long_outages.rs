//! A daemon that is away for a minute, that comes back in every bad mood before it is well again, or
//! that is away when the shim ends: no event is lost, doubled or out of order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;
use wherry_integration::sink::Mood;

/// How long the daemon is away altogether.
const AWAY: Duration = Duration::from_secs(60);

/// Adds, runs and deletes one exec, and adds many; the briefs of it all in order.
fn busy(bundle: &Bundle, shim: &Shim, round: usize, many: usize) -> Vec<String> {
    let mut expected = Vec::new();
    let id = format!("r{round}");
    shim.task
        .exec(&bundle.exec(&id, &["sh", "-c", "exit 9"]))
        .unwrap();
    shim.task.start("c1", &id).unwrap();
    shim.task.wait("c1", &id).unwrap();
    shim.task.delete("c1", &id).unwrap();
    for what in ["exec-added", "exec-started"] {
        expected.push(format!("{what} c1/{id}"));
    }
    expected.push(format!("exit c1/{id} 9"));
    for n in 0..many {
        let id = format!("e{round}-{n}");
        // Deleted unstarted: told of nowhere, and the shim keeps nothing of it.
        shim.task.exec(&bundle.exec(&id, &["true"])).unwrap();
        shim.task.delete("c1", &id).unwrap();
        expected.push(format!("exec-added c1/{id}"));
    }
    expected
}

#[test]
fn two_thousand_events_of_a_minutes_outage_come_once_and_in_order() {
    known_difference!("go", "Go's calls hang once 128 events wait for the daemon");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    bed.sink().wait_brief("start c1");
    let before = Leaks::of_shim(shim.pid);
    bed.sink().go_away();
    let mut expected = vec!["create c1".to_owned(), "start c1".to_owned()];
    for round in 0..20 {
        expected.extend(busy(&bundle, &shim, round, 97));
        assert!(!holds(AWAY / 20, || !shim.alive()), "the shim lives");
    }
    assert_eq!(expected.len(), 2002);
    bed.sink().come_back();
    eventually(LONG, "all of them", || {
        bed.sink().events().len() >= expected.len()
    });
    assert_eq!(bed.sink().briefs(), expected);
    let mut left = Vec::new();
    let same = holds(SHORT, || {
        left = Leaks::of_shim(shim.pid).compare(&before);
        left.is_empty()
    });
    assert!(same, "{left:?}");
    bed.finish(&bundle, &shim);
}

#[test]
fn a_daemon_in_every_mood_gets_each_event_and_in_order() {
    known_difference!("go", "retries reorder events");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    bed.sink().wait_brief("start c1");
    let mut expected = vec!["create c1".to_owned(), "start c1".to_owned()];
    for round in 0..6 {
        match round % 3 {
            0 => bed.sink().go_away(),
            1 => bed.sink().set_mood(Mood::Hang),
            _ => bed.sink().set_mood(Mood::TakeAndDrop),
        }
        expected.extend(busy(&bundle, &shim, round, 20));
        // A daemon that is not well is started anew; it takes nothing more before it goes.
        if round % 3 != 0 {
            bed.sink().go_away();
        }
        bed.sink().set_mood(Mood::Take);
        bed.sink().come_back();
        // What a daemon took without saying so comes again at once, and nothing in between.
        let told = || {
            let mut told = bed.sink().briefs();
            told.dedup();
            told
        };
        eventually(LONG, "all of them", || told().len() >= expected.len());
        let told = told();
        let odd = told.iter().zip(&expected).position(|(a, b)| a != b);
        let around = odd.map(|at| &told[at.saturating_sub(2)..told.len().min(at + 3)]);
        assert!(told == expected, "round {round}: {odd:?}: {around:?}");
    }
    bed.finish(&bundle, &shim);
}

/// A container that has ended and is deleted while the daemon is in a bad way, and Shutdown at
/// once: the events that wait leave before the shim does, if the daemon is back within two seconds.
fn ends_meanwhile(fall: impl Fn(&EventSink), rise: impl Fn(&EventSink)) {
    known_difference!(
        "go",
        "Go's shutdown does not wait for events that are tried again"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    bed.sink().wait_brief("start c1");
    fall(bed.sink());
    shim.task.kill("c1", "", 9, false).unwrap();
    shim.task.wait("c1", "").unwrap();
    shim.task.delete("c1", "").unwrap();
    // The answer may be lost with the connection.
    let _ = shim.task.shutdown("c1");
    assert_eq!(bed.sink().briefs(), ["create c1", "start c1"]);
    rise(bed.sink());
    shim.wait_gone();
    assert_eq!(
        bed.sink().briefs(),
        ["create c1", "start c1", "exit c1 137", "delete c1 137"]
    );
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_shim_that_ends_while_the_daemon_is_away_tells_the_end_when_it_is_back() {
    ends_meanwhile(EventSink::go_away, EventSink::come_back);
}

#[test]
fn a_shim_that_ends_while_the_daemon_is_slow_tells_the_end_when_it_answers() {
    ends_meanwhile(
        |sink| sink.set_mood(Mood::Hang),
        |sink| {
            sink.go_away();
            sink.set_mood(Mood::Take);
            sink.come_back();
        },
    );
}

#[test]
fn a_shim_that_ends_while_the_daemon_stays_away_ends_all_the_same() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    bed.sink().wait_brief("start c1");
    bed.sink().go_away();
    shim.task.kill("c1", "", 9, false).unwrap();
    shim.task.wait("c1", "").unwrap();
    shim.task.delete("c1", "").unwrap();
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}
