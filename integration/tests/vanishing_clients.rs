//! Clients that hang up or time out in the middle of a call: the operation is whole in the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

const EXEC_REAL: &str = "exec $REAL \"$@\"";

/// A runtime that is slow in one subcommand: it touches `began` and waits for `go`.
fn slow(command: &str) -> String {
    format!(
        "[ $cmd = {command} ] && {{ touch $DIR/began; \
         n=0; while ! [ -e $DIR/go ] && [ $n -lt 1000 ]; do sleep 0.02; n=$((n+1)); done; }}; {EXEC_REAL}"
    )
}

/// A client that goes away in the middle of `call`; the operation must be whole in the end.
fn client_vanishes(
    command: &str,
    call: impl FnOnce(&TaskClient) -> Result<(), CallError> + Send + 'static,
    by_timeout: bool,
    prepare: impl Fn(&Bed, &Bundle, &Shim),
    whole: impl Fn(&Bed, &Bundle, &Shim),
) {
    known_difference!(
        "go",
        "the client's deadline and connection end the running runc"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &slow(command));
    prepare(&bed, &bundle, &shim);
    let client = shim.task.another();
    let client = if by_timeout {
        client.deadline(Duration::from_millis(300))
    } else {
        client
    };
    let pending = client.spawn(call);
    eventually(SHORT, "the runtime is at it", || bed.path("began").exists());
    if !by_timeout {
        client.hang_up();
    }
    let result = pending.join().unwrap();
    assert!(result.is_err(), "{result:?}");
    bed.flag("go");
    whole(&bed, &bundle, &shim);
    if shim.task.state("c1", "").is_ok() {
        bed.finish(&bundle, &shim);
    } else {
        bed.finish_empty(&bundle, &shim);
    }
}

fn is(status: Status) -> impl Fn(&Bed, &Bundle, &Shim) {
    move |_, _, shim| {
        eventually(SHORT, "the operation is whole", || {
            shim.task
                .state("c1", "")
                .is_ok_and(|s| s.status() == status)
        });
    }
}

fn create(_: &Bed, bundle: &Bundle, shim: &Shim) {
    shim.task.create(&bundle.create()).unwrap();
}

fn create_and_start(bed: &Bed, bundle: &Bundle, shim: &Shim) {
    create(bed, bundle, shim);
    shim.task.start("c1", "").unwrap();
}

macro_rules! vanishing_clients {
    ($($call:ident, $command:expr, $prepare:expr, $do:expr, $whole:expr;)*) => {
        mod a_client_that_vanishes {
            use super::*;
            $(mod $call {
                use super::*;
                #[test]
                fn by_hanging_up() { client_vanishes($command, $do, false, $prepare, $whole); }
                #[test]
                fn by_timing_out() { client_vanishes($command, $do, true, $prepare, $whole); }
            })*
        }
    };
}

vanishing_clients! {
    in_start, "start", create, |t| t.start("c1", "").map(drop), is(Status::RUNNING);
    in_pause, "pause", create_and_start, |t| t.pause("c1").map(drop), |b, u, s| {
        is(Status::PAUSED)(b, u, s);
        s.task.resume("c1").unwrap();
    };
    in_resume, "resume", |b, u, s| {
        create_and_start(b, u, s);
        s.task.pause("c1").unwrap();
    }, |t| t.resume("c1").map(drop), is(Status::RUNNING);
    in_kill, "kill", create_and_start, |t| t.kill("c1", "", 9, false).map(drop), is(Status::STOPPED);
    // Where nothing can be written: the checkpoint fails, and the container runs on.
    in_checkpoint, "checkpoint", create_and_start,
        |t| t.checkpoint("c1", std::path::Path::new("/proc/checkpoint")).map(drop), is(Status::RUNNING);
    in_update, "update", create_and_start,
        |t| t.update("c1", &serde_json::json!({"pids": {"limit": 55}})).map(drop),
        |_, bundle, _| {
            eventually(SHORT, "the limit is set", || {
                host::cgroups(&bundle.cgroup).iter().any(|dir| {
                    std::fs::read_to_string(dir.join("pids.max")).is_ok_and(|v| v.trim() == "55")
                })
            });
        };
    in_exec, "exec", |b, u, s| {
        create_and_start(b, u, s);
        s.task.exec(&u.exec("e1", &["sleep", "1000"])).unwrap();
    }, |t| t.start("c1", "e1").map(drop), |_, _, s| {
        eventually(SHORT, "the exec runs", || {
            s.task.state("c1", "e1").is_ok_and(|s| s.status() == Status::RUNNING)
        });
    };
    in_delete, "delete", |b, u, s| {
        create_and_start(b, u, s);
        s.task.kill("c1", "", 9, false).unwrap();
        s.task.wait("c1", "").unwrap();
    }, |t| t.delete("c1", "").map(drop), |_, _, s| {
        assert_eq!(s.task.delete("c1", "").unwrap().exit_status, 137);
    };
}

/// Calls that are answered at once, by clients that do not stay for the answer. (That a Wait ends
/// with its client is row 6 of the complaints.)
#[test]
fn clients_that_hang_up_with_a_request_on_its_way_leave_nothing() {
    const ROUNDS: usize = 10;
    type Call = fn(&TaskClient);
    let calls: [(&str, Call); 9] = [
        ("State", |t| drop(t.state("c1", ""))),
        ("Wait", |t| drop(t.wait("c1", ""))),
        ("Pids", |t| drop(t.pids("c1"))),
        ("Stats", |t| drop(t.stats("c1"))),
        ("Connect", |t| drop(t.connect_task("c1"))),
        ("CloseIO", |t| drop(t.close_io("c1", "e1"))),
        ("ResizePty", |t| drop(t.resize("c1", "e1", 80, 24))),
        ("Kill", |t| drop(t.kill("c1", "e1", 0, false))),
        // Refused, since there is a container.
        ("Shutdown", |t| drop(t.shutdown("c1"))),
    ];
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let mut request = bundle.exec_spec("e1", &Spec::sleeper().terminal());
    request.stdout = bed.drain();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    let once = |name: &str| name != "Wait" && name != "Shutdown";
    for (_, call) in calls.into_iter().filter(|(name, _)| once(name)) {
        call(&shim.task);
    }
    // The helper that read the last answer may still be ending.
    holds(Duration::from_secs(1), || host::threads(shim.pid) == 1);
    let before = Leaks::of_shim(shim.pid);
    let mut chance = Chance::new();
    for (name, call) in calls {
        if name == "Shutdown" && target::under_test_is_v1() {
            continue; // Obeyed there, whatever is left.
        }
        for _ in 0..ROUNDS {
            let client = shim.task.another();
            let pending = client.spawn(call);
            // A moment of its own, and not the wait for anything.
            holds(Duration::from_micros(chance.below(3_000)), || false);
            client.hang_up();
            pending.join().unwrap();
        }
        for exec in ["", "e1"] {
            let state = shim.task.patience(SHORT).state("c1", exec).unwrap();
            assert_eq!(state.status(), Status::RUNNING, "{name}");
        }
    }
    known_difference!(
        "go",
        "descriptors and threads come and go with its scheduler"
    );
    let mut left = Vec::new();
    let same = holds(SHORT, || {
        left = Leaks::of_shim(shim.pid).compare(&before);
        left.is_empty()
    });
    assert!(same, "{left:?}");
    bed.finish(&bundle, &shim);
    let wanted = [
        "create c1",
        "start c1",
        "exec-added c1/e1",
        "exec-started c1/e1",
        "exit c1/e1 137",
        "exit c1 137",
        "delete c1 137",
    ];
    assert_eq!(bed.sink().briefs(), wanted);
}
