//! SIGKILL at random moments: of the shim, with the `delete` action after it, and of the runtime in
//! the middle of each call. The seed is printed; `WHERRY_SEED` repeats it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;
use wherry_integration::soak;

#[test]
fn shims_killed_at_random_moments_leave_nothing_after_delete() {
    known_difference!(
        "go",
        "Go's delete leaves what a killed runc has left (containerd #9568)"
    );
    soak::kills(20, &|_, _| ());
}

/// The runtimes that a shim has started and that still run. A container's init that is not started
/// yet may look the same (crun's does), but for its cgroup.
fn runtimes(shim: &Shim) -> Vec<i32> {
    let cgroup = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let own = cgroup(shim.pid);
    host::children(shim.pid)
        .into_iter()
        .filter(|pid| host::cmdline(*pid).iter().any(|arg| arg == "--root"))
        .filter(|pid| cgroup(*pid) == own)
        .collect()
}

/// Makes `call`, kills the runtime that it starts a random moment later, and tells how it ended;
/// nothing where the runtime was faster.
fn cut<T: Send + 'static>(
    shim: &Shim,
    chance: &mut Chance,
    call: impl FnOnce(&TaskClient) -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    let pending = shim.task.another().patience(LONG).spawn(call);
    let mut killed = Vec::new();
    holds(LONG, || {
        killed = runtimes(shim);
        !killed.is_empty() || pending.is_finished()
    });
    // A moment of its own, and not the wait for anything.
    holds(Duration::from_micros(chance.below(40_000)), || {
        pending.is_finished()
    });
    killed.into_iter().for_each(host::kill_hard);
    let result = pending.join().unwrap();
    if let Err(error) = &result {
        assert!(
            error.code().is_some(),
            "an answer, and a clear one: {error}"
        );
    }
    result
}

#[test]
fn runtimes_killed_in_create_leave_no_container() {
    known_difference!("go", "Go leaves what a killed runc has left");
    let mut chance = Chance::new();
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    for _ in 0..12 {
        let request = bundle.create();
        if cut(&shim, &mut chance, move |t| t.create(&request)).is_ok() {
            shim.task.delete("c1", "").unwrap();
        }
        let gone = shim.task.state("c1", "").unwrap_err();
        assert_eq!(gone.code(), Some(Code::NOT_FOUND));
        eventually(SHORT, "no process of it", || {
            host::cgroup_members(&bundle.cgroup).is_empty()
        });
        assert_eq!(bed.runtime_states(), Vec::<std::path::PathBuf>::new());
    }
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn runtimes_killed_in_the_calls_after_create_cost_that_call_alone() {
    known_difference!("go", "Go leaves what a killed runc has left");
    let mut chance = Chance::new();
    for round in 0..6 {
        let bed = Bed::new();
        let (bundle, shim) = bed.created("c1", &Spec::sleeper());
        // A start that was cut off may have come through: what counts is the state after it.
        let started = cut(&shim, &mut chance, |t| t.start("c1", "")).is_ok();
        let status = shim.task.state("c1", "").unwrap().status();
        assert!(!started || status == Status::RUNNING, "{round}: {status:?}");
        if started {
            shim.task
                .exec(&bundle.exec("e1", &["sleep", "1000"]))
                .unwrap();
            let exec = cut(&shim, &mut chance, |t| t.start("c1", "e1"));
            if exec.is_ok() {
                shim.task.kill("c1", "e1", 9, false).unwrap();
                shim.task.wait("c1", "e1").unwrap();
            }
            shim.task.delete("c1", "e1").unwrap();
            let _ = cut(&shim, &mut chance, |t| t.pause("c1"));
            let _ = cut(&shim, &mut chance, |t| t.resume("c1"));
            // Whatever became of the two, a container can be made to run again.
            if shim.task.state("c1", "").unwrap().status() == Status::PAUSED {
                shim.task.resume("c1").unwrap();
            }
        }
        shim.task.kill("c1", "", 9, false).unwrap();
        shim.task.wait("c1", "").unwrap();
        if cut(&shim, &mut chance, |t| t.delete("c1", "")).is_err() {
            shim.task.delete("c1", "").unwrap();
        }
        bed.shut(&bundle, &shim);
        bed.remove(&bundle);
        bed.assert_clean();
        let told = bed.sink().briefs();
        let once =
            |brief: &str| assert_eq!(told.iter().filter(|b| *b == brief).count(), 1, "{told:?}");
        once("create c1");
        once("exit c1 137");
        once("delete c1 137");
        assert_eq!(told.last().map(String::as_str), Some("delete c1 137"));
        assert!(told.iter().filter(|b| *b == "start c1").count() <= 1);
    }
}

#[test]
fn a_shim_killed_while_a_terminal_is_handed_over_leaves_no_console_socket() {
    known_difference!("go", "Go's delete knows nothing of console sockets");
    let bed = Bed::new();
    let script = "[ $cmd = exec ] && { touch $DIR/began; sleep 1000; }; exec $REAL \"$@\"";
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), script);
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    let mut request = bundle.exec_spec("e1", &Spec::sleeper().terminal());
    request.stdout = bed.drain();
    shim.task.exec(&request).unwrap();
    let pending = shim.task.another().spawn(|t| t.start("c1", "e1").map(drop));
    eventually(SHORT, "the runtime is at it", || bed.path("began").exists());
    let sockets = || host::files_below(&bed.path("run"), &|_| true);
    assert_eq!(sockets().len(), 2, "a folder and a socket in it");
    shim.kill();
    assert!(pending.join().unwrap().is_err());
    bed.delete(&bundle).response();
    assert_eq!(sockets(), Vec::<std::path::PathBuf>::new());
    bed.discard(&bundle);
    bed.assert_clean();
}

#[test]
fn a_runtime_killed_after_it_made_the_container_leaves_none() {
    known_difference!("go", "Go leaves what a killed runc has left");
    let bed = Bed::new();
    let script = "[ $cmd = create ] && { $REAL \"$@\"; kill -9 $$; }; exec $REAL \"$@\"";
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), script);
    shim.task.create(&bundle.create()).unwrap_err();
    assert_eq!(bed.runtime_states(), Vec::<std::path::PathBuf>::new());
    assert_eq!(host::cgroup_members(&bundle.cgroup), Vec::<i32>::new());
    bed.finish_empty(&bundle, &shim);
}
