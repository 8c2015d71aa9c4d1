//! A shim that nobody needs ends itself after a minute; one that somebody needs does not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

/// The minute of the design and what a busy machine adds.
const MINUTE: Duration = Duration::from_secs(60);
const SLACK: Duration = Duration::from_secs(15);

macro_rules! slow {
    () => {
        skip_unless!(
            std::env::var_os("WHERRY_SLOW").is_some(),
            "it waits more than a minute; set WHERRY_SLOW to run it"
        );
    };
}

#[test]
fn a_shim_without_container_and_connection_ends_itself_after_a_minute() {
    known_difference!("go", "Go's shim stays for ever");
    slow!();
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task.kill("c1", "", 9, false).unwrap();
    shim.task.wait("c1", "").unwrap();
    shim.task.delete("c1", "").unwrap();
    bed.sink().wait_brief("delete c1 137");
    // The daemon dies and never asks for a Shutdown.
    shim.task.hang_up();
    assert!(!holds(MINUTE - SLACK, || !shim.alive()), "too early");
    eventually(SLACK * 2, "the shim ends itself", || !shim.alive());
    assert!(!shim.socket.exists(), "its socket goes with it");
    bed.discard(&bundle);
    bed.assert_clean();
}

#[test]
fn a_shim_with_a_container_or_a_connection_stays() {
    slow!();
    let bed = Bed::new();
    let (with_container, first) = bed.running("c1", &Spec::sleeper());
    first.task.hang_up();
    let (with_connection, second) = bed.shim("c2", &Spec::sleeper());
    assert!(!holds(MINUTE + SLACK, || !first.alive() || !second.alive()));
    let again = first.task.another();
    assert_eq!(again.state("c1", "").unwrap().status(), Status::RUNNING);
    again.kill("c1", "", 9, false).unwrap();
    again.wait("c1", "").unwrap();
    again.delete("c1", "").unwrap();
    let _ = again.shutdown("c1");
    first.wait_gone();
    bed.remove(&with_container);
    bed.shut(&with_connection, &second);
    bed.remove(&with_connection);
    bed.assert_clean();
}
