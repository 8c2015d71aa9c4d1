//! Out of memory: told when it happened, before the exit, and only then.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

/// Touches 64 MiB at once.
const HOG: &str = "dd if=/dev/zero of=/dev/null bs=64M count=1";

#[test]
fn oom_of_the_init_is_told_before_its_exit() {
    let bed = Bed::new();
    let spec = Spec::sh(&format!("exec {HOG}")).memory(16 << 20);
    let (bundle, shim) = bed.running("c1", &spec);
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    if !holds(SHORT, || bed.sink().briefs().contains(&"oom c1".to_owned())) {
        known_difference!(
            "go",
            "the watch is armed after the start, and may be too late (row 22)"
        );
    }
    bed.sink().wait_brief("oom c1");
    let (oom, exit) = (
        bed.sink().position("oom c1"),
        bed.sink().position("exit c1 137"),
    );
    if oom > exit {
        known_difference!("go", "before 2.3 the OOM may come after the exit");
    }
    assert!(oom < exit, "{:?}", bed.sink().briefs());
    bed.finish(&bundle, &shim);
}

#[test]
fn oom_of_an_exec_is_told_before_its_exit() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper().memory(16 << 20));
    shim.task
        .exec(&bundle.exec("e1", &["sh", "-c", &format!("exec {HOG}")]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 137);
    bed.sink().wait_brief("oom c1");
    let (oom, exit) = (
        bed.sink().position("oom c1"),
        bed.sink().position("exit c1/e1 137"),
    );
    if oom > exit {
        known_difference!("go", "before 2.3 the OOM may come after the exit");
    }
    assert!(oom < exit, "{:?}", bed.sink().briefs());
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn oom_of_a_child_that_the_init_survives_is_told() {
    let bed = Bed::new();
    let spec = Spec::sh(&format!("{HOG}; sleep 1000")).memory(16 << 20);
    let (bundle, shim) = bed.running("c1", &spec);
    bed.sink().wait_brief("oom c1");
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_kill_without_want_of_memory_is_no_oom() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper().memory(64 << 20));
    bed.end(&bundle, &shim);
    bed.sink().wait_brief("delete c1 137");
    bed.remove(&bundle);
    bed.assert_clean();
    // On cgroup v1 the eventfd fires once more when the cgroup is removed.
    assert!(
        !bed.sink().briefs().contains(&"oom c1".to_owned()),
        "{:?}",
        bed.sink().briefs()
    );
}
