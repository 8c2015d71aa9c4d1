//! Kill in all its variants.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

/// A shell that says which signal it got, with itself as init.
fn trapper(signal: &str, status: u32) -> Spec {
    Spec::sh(&format!(
        "trap 'exit {status}' {signal}; echo ready; while :; do sleep 1 & wait; done"
    ))
}

fn trapped(signal_name: &str, signal: u32) {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &trapper(signal_name, 42));
    let out = OutputFifo::read(&bed.fifo("out"));
    shim.task
        .create(&bundle.create_with("", &out.path(), &bed.drain()))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    out.wait_text(SHORT, "ready");
    shim.task.kill("c1", "", signal, false).unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 42);
    bed.finish(&bundle, &shim);
}

#[test]
fn term_reaches_the_init() {
    trapped("TERM", 15);
}

#[test]
fn hup_reaches_the_init() {
    trapped("HUP", 1);
}

#[test]
fn a_real_time_signal_reaches_the_init() {
    // SIGRTMIN+3, which systemd takes for "halt".
    trapped("37", 37);
}

#[test]
fn a_real_time_signal_reaches_an_exec() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let out = OutputFifo::read(&bed.fifo("out"));
    let mut request = bundle.exec_spec("e1", &trapper("37", 43));
    request.stdout = out.path();
    request.stderr = bed.drain();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    out.wait_text(SHORT, "ready");
    shim.task.kill("c1", "e1", 37, false).unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 43);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_signal_that_ends_an_exec_is_128_and_the_signal() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    for signal in [15, 9, 34, 64] {
        let exec = format!("e{signal}");
        let out = OutputFifo::read(&bed.fifo(&exec));
        let mut request = bundle.exec_spec(&exec, &Spec::sh("echo ready; exec sleep 1000"));
        request.stdout = out.path();
        request.stderr = bed.drain();
        shim.task.exec(&request).unwrap();
        shim.task.start("c1", &exec).unwrap();
        // Until it has become the program, it is runc, which ignores real-time signals.
        out.wait_text(SHORT, "ready");
        shim.task.kill("c1", &exec, signal, false).unwrap();
        assert_eq!(
            shim.task.wait("c1", &exec).unwrap().exit_status,
            128 + signal
        );
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn killing_an_exec_leaves_the_init_alone_even_with_all() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap();
    shim.task.kill("c1", "e1", 9, true).unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 137);
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn kill_all_reaches_every_process_of_the_container() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap();
    shim.task.kill("c1", "", 9, true).unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 137);
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    bed.finish(&bundle, &shim);
}

#[test]
fn with_a_shared_pid_namespace_the_inits_end_kills_what_it_left() {
    let bed = Bed::new();
    let spec = Spec::sh("sleep 1001 & echo ready; exec sleep 1000").without_namespace("pid");
    let (bundle, shim) = bed.shim("c1", &spec);
    let out = OutputFifo::read(&bed.fifo("out"));
    shim.task
        .create(&bundle.create_with("", &out.path(), &bed.drain()))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    out.wait_text(SHORT, "ready");
    assert_eq!(host::cgroup_members(&bundle.cgroup).len(), 2);
    shim.task.kill("c1", "", 9, false).unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    eventually(SHORT, "the orphan is gone", || {
        host::cgroup_members(&bundle.cgroup).is_empty()
    });
    bed.finish(&bundle, &shim);
}

#[test]
fn killing_what_has_ended_is_not_found() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sh("exit 0"));
    shim.task.wait("c1", "").unwrap();
    for all in [false, true] {
        let result = shim.task.kill("c1", "", 9, all);
        // With `all` runc looks at the cgroup only, and an empty one is nothing to refuse.
        if !all || result.is_err() {
            assert_eq!(result.unwrap_err().code(), Some(Code::NOT_FOUND));
        }
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn an_unknown_signal_is_an_error_and_harms_nothing() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap();
    for signal in [65, 1000, u32::MAX] {
        assert!(shim.task.kill("c1", "", signal, false).is_err(), "{signal}");
        assert!(
            shim.task.kill("c1", "e1", signal, false).is_err(),
            "{signal}"
        );
    }
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    assert_eq!(
        shim.task.state("c1", "e1").unwrap().status(),
        Status::RUNNING
    );
    bed.finish(&bundle, &shim);
}

#[test]
fn a_paused_container_dies_of_sigkill() {
    if !target::cgroup_v2() {
        known_difference!("crun", "crun does not thaw what it kills");
    }
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task.pause("c1").unwrap();
    shim.task.kill("c1", "", 9, false).unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::STOPPED);
    bed.finish(&bundle, &shim);
}
