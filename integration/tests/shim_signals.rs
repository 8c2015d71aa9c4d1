//! Signals to the shim itself, and the loss of what it was started with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use nix::sys::signal::Signal;
use wherry_integration::prelude::*;

#[test]
fn sigterm_ends_the_shim_and_the_container_lives_on_until_delete() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let pid = i32::try_from(shim.task.state("c1", "").unwrap().pid).unwrap();
    host::signal(shim.pid, Signal::SIGTERM);
    shim.wait_gone();
    assert!(host::alive(pid));
    known_difference!(
        "go-v1",
        "its delete stops at the socket that the shim has removed itself"
    );
    let outcome = bed.delete(&bundle);
    if target::flavor() != target::Flavor::Go {
        assert_eq!(outcome.response().exit_status, 137);
    }
    eventually(SHORT, "the container is gone", || !host::alive(pid));
    bed.discard(&bundle);
    bed.assert_clean();
}

#[test]
fn sigusr1_writes_the_state_to_the_log_and_does_not_kill() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    host::signal(shim.pid, Signal::SIGUSR1);
    let text = if target::flavor() == target::Flavor::Go {
        "goroutine"
    } else {
        "c1"
    };
    eventually(SHORT, "the state is in the log", || {
        shim.log().contains(text)
    });
    assert!(shim.alive());
    shim.task.state("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn the_shim_survives_its_bundle_and_its_log_reader() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    std::fs::remove_file(bundle.path.join("log")).unwrap();
    std::fs::rename(bundle.path.join("config.json"), bundle.path.join("gone")).unwrap();
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn sigusr1_tells_containers_processes_operations_queues_and_fifos() {
    known_difference!("go", "Go writes its stacks");
    let bed = Bed::new();
    let script = "[ $cmd = pause ] && { touch $DIR/began; while ! [ -e $DIR/go ]; do sleep 0.02; done; }; \
         exec $REAL \"$@\"";
    let mut bundle = bed.bundle("c1", &Spec::new(&["cat"]));
    bundle.options.binary_name = bed.wrapper("slow", script).display().to_string();
    let shim = bed.start(&bundle);
    let mut stdin = InputFifo::new(&bed.fifo("in"));
    let out = OutputFifo::read(&bed.fifo("out"));
    shim.task
        .create(&bundle.create_with(&stdin.path(), &out.path(), &bed.drain()))
        .unwrap();
    let init = shim.task.start("c1", "").unwrap().pid;
    stdin.open();
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    let exec = shim.task.start("c1", "e1").unwrap().pid;
    shim.task.exec(&bundle.exec("e2", &["true"])).unwrap();
    bed.sink().wait_brief("exec-added c1/e2");
    // With the daemon away events queue up, and with a slow runtime an operation is pending.
    bed.sink().go_away();
    shim.task.exec(&bundle.exec("e3", &["true"])).unwrap();
    let pause = shim.task.another().spawn(|t| t.pause("c1").map(drop));
    eventually(SHORT, "the pause is under way", || {
        bed.path("began").exists()
    });
    host::signal(shim.pid, Signal::SIGUSR1);
    let wanted = [
        "container c1".to_owned(),
        format!("{init}"),
        "e1".to_owned(),
        format!("{exec}"),
        "e2".to_owned(),
        "Pause".to_owned(),
        "events queued=1".to_owned(),
        "stdin: held".to_owned(),
        out.path(),
    ];
    let told = || shim.log().split("state: ").nth(1).map(str::to_owned);
    let complete = || told().is_some_and(|t| wanted.iter().all(|w| t.contains(w)));
    if !holds(SHORT, complete) {
        let text = told().unwrap_or_default();
        let absent: Vec<_> = wanted.iter().filter(|w| !text.contains(*w)).collect();
        panic!("the dump does not tell {absent:?}: {text}");
    }
    bed.sink().come_back();
    bed.flag("go");
    pause.join().unwrap().unwrap();
    shim.task.resume("c1").unwrap();
    stdin.close();
    bed.finish(&bundle, &shim);
}
