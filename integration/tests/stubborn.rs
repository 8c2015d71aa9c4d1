//! Containers and processes that do not end as they are asked to.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test joins a container from outside, as an administrator does"
)]

use std::process::{Command, Stdio};
use std::time::Instant;

use wherry_integration::prelude::*;

/// A container whose init ignores what can be ignored, and says when it does.
fn ignoring(bed: &Bed) -> (Bundle, Shim) {
    let spec = Spec::sh("trap '' TERM INT HUP; echo ready; while :; do sleep 1; done");
    let (bundle, shim) = bed.shim("c1", &spec);
    let out = OutputFifo::read(&bed.fifo("out"));
    shim.task
        .create(&bundle.create_with("", &out.path(), &bed.drain()))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    out.wait_text(SHORT, "ready");
    (bundle, shim)
}

#[test]
fn an_init_that_ignores_sigterm_runs_on_with_its_execs_until_sigkill() {
    let bed = Bed::new();
    let (bundle, shim) = ignoring(&bed);
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap();
    shim.task.kill("c1", "", 15, false).unwrap();
    shim.task
        .exec(&bundle.exec("e2", &["sh", "-c", "exit 4"]))
        .unwrap();
    shim.task.start("c1", "e2").unwrap();
    assert_eq!(shim.task.wait("c1", "e2").unwrap().exit_status, 4);
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    shim.task.kill("c1", "e1", 15, false).unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 143);
    shim.task.kill("c1", "", 9, false).unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    bed.sink().wait_brief("exit c1 137");
    bed.finish(&bundle, &shim);
}

#[test]
fn sigterm_to_all_ends_the_execs_and_leaves_an_init_that_ignores_it() {
    let bed = Bed::new();
    let (bundle, shim) = ignoring(&bed);
    for id in ["e1", "e2"] {
        shim.task
            .exec(&bundle.exec(id, &["sleep", "1000"]))
            .unwrap();
        shim.task.start("c1", id).unwrap();
        let pid = shim.task.state("c1", id).unwrap().pid;
        let pid = i32::try_from(pid).unwrap();
        eventually(SHORT, "the program runs", || host::comm(pid) == "sleep");
    }
    shim.task.kill("c1", "", 15, true).unwrap();
    for id in ["e1", "e2"] {
        assert_eq!(shim.task.wait("c1", id).unwrap().exit_status, 143, "{id}");
    }
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_created_containers_delete_publishes_its_exit_first() {
    let bed = Bed::new();
    let (bundle, shim) = bed.created("c1", &Spec::sleeper());
    let answer = shim.task.delete("c1", "").unwrap();
    bed.sink()
        .wait_for(SHORT, "the delete", |e| e.topic == "/tasks/delete");
    let briefs = bed.sink().briefs();
    let place = |what: &str| briefs.iter().position(|b| b.starts_with(what));
    if place("exit c1").is_none() {
        known_difference!(
            "go",
            "Go's exit of a deleted container may come late or never"
        );
    }
    assert!(
        place("exit c1").unwrap() < place("delete c1").unwrap(),
        "{briefs:?}"
    );
    assert_eq!(briefs.len(), 3, "{briefs:?}");
    if answer.exit_status != 137 {
        known_difference!("go", "Go answers before it has the exit");
    }
    assert_eq!(answer.exit_status, 137);
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_process_that_joined_from_outside_does_not_hold_the_inits_exit() {
    skip_unless!(
        target::find_in_path("nsenter").is_some(),
        "nsenter is not installed"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let init = shim.task.state("c1", "").unwrap().pid;
    // In the container's PID namespace by its parent's wish, and in none of its cgroups.
    let mut joined = Command::new("nsenter")
        .args([&format!("--target={init}"), "--pid", "--", "sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let nsenter = i32::try_from(joined.id()).unwrap();
    eventually(SHORT, "it has joined", || {
        !host::children(nsenter).is_empty()
    });
    let began = Instant::now();
    shim.task.kill("c1", "", 9, false).unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    bed.sink().wait_brief("exit c1 137");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    joined.wait().unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn a_process_put_into_the_containers_cgroup_does_not_hold_the_inits_exit() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    for dir in host::cgroups(&bundle.cgroup) {
        std::fs::write(dir.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    }
    let began = Instant::now();
    shim.task.kill("c1", "", 9, false).unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    bed.sink().wait_brief("exit c1 137");
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
    // Delete may end it with the rest of the cgroup, or fail and say so; both in time.
    let deleted = shim.task.patience(LONG).delete("c1", "");
    assert_ne!(deleted.as_ref().err(), Some(&CallError::Timeout));
    let _ = stranger.kill();
    stranger.wait().unwrap();
    if deleted.is_err() {
        shim.task.delete("c1", "").unwrap();
    }
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}
