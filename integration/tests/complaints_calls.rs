//! What users of the Go shim complain of (issue 2, part 7), rows 2 to 16 of the contract's section 5:
//! calls that grow, hang, lock or are left half done. Each test is named after the row and what it prevents.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::time::Instant;

use wherry_integration::prelude::*;

const EXEC_REAL: &str = "exec $REAL \"$@\"";

/// Private memory of a process in kB, clean pages of its binary included while it is not synced.
fn private_dirty(pid: i32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .unwrap()
        .lines()
        .find_map(|l| l.strip_prefix("Private_Dirty:"))
        .and_then(|v| v.split_whitespace().next()?.parse().ok())
        .unwrap()
}

fn run_exec(bundle: &Bundle, task: &TaskClient, exec: &str, script: &str) -> u32 {
    task.exec(&bundle.exec(exec, &["sh", "-c", script]))
        .unwrap();
    task.start(&bundle.id, exec).unwrap();
    let status = task.wait(&bundle.id, exec).unwrap().exit_status;
    task.delete(&bundle.id, exec).unwrap();
    status
}

#[test]
fn row2_memory_does_not_grow_with_execs() {
    known_difference!(
        "go",
        "the stream entry of each call stays behind (ttrpc#236)"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    for n in 0..70 {
        run_exec(&bundle, &shim.task, &format!("w{n}"), ":");
    }
    let before = private_dirty(shim.pid);
    for n in 0..70 {
        run_exec(&bundle, &shim.task, &format!("e{n}"), ":");
    }
    let after = private_dirty(shim.pid);
    assert!(after <= before + 64, "{before} kB, then {after} kB");
    bed.finish(&bundle, &shim);
}

#[test]
fn row6_waits_end_with_their_client() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    // Other descriptors of the shim come and go; its sockets are connections.
    let sockets = || {
        let all = host::descriptors(shim.pid);
        all.iter().filter(|(_, t)| t.starts_with("socket:")).count()
    };
    let before = sockets();
    let clients: Vec<_> = (0..30).map(|_| shim.task.another()).collect();
    let waits: Vec<_> = clients
        .iter()
        .map(|c| c.spawn(|t| t.wait("c1", "").err()))
        .collect();
    let mut most = 0;
    let all = holds(SHORT, || {
        most = sockets();
        // One or two of before may have been about to close.
        most >= before + 25
    });
    assert!(all, "{before} connections, then {most}, not 30 more");
    clients.iter().for_each(TaskClient::hang_up);
    waits
        .into_iter()
        .for_each(|w| assert_eq!(w.join().unwrap(), Some(CallError::Closed)));
    if !holds(SHORT, || sockets() <= before) {
        known_difference!("go", "a Wait keeps its connection");
    }
    assert!(sockets() <= before);
    bed.finish(&bundle, &shim);
}

#[test]
fn row6_a_wait_ends_when_the_start_fails() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["/no/such/program"]))
        .unwrap();
    let wait = shim
        .task
        .another()
        .spawn(|t| t.patience(SHORT).wait("c1", "e1").err());
    shim.task.start("c1", "e1").unwrap_err();
    assert_ne!(wait.join().unwrap(), Some(CallError::Timeout));
    bed.finish(&bundle, &shim);
}

#[test]
fn row6_a_wait_ends_when_its_process_is_deleted_unstarted() {
    known_difference!("go", "such a Wait is never answered");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task.exec(&bundle.exec("e1", &["true"])).unwrap();
    let wait = shim
        .task
        .another()
        .spawn(|t| t.patience(SHORT).wait("c1", "e1").err());
    shim.task.state("c1", "e1").unwrap();
    shim.task.delete("c1", "e1").unwrap();
    assert_ne!(wait.join().unwrap(), Some(CallError::Timeout));
    bed.finish(&bundle, &shim);
}

#[test]
fn row7_failed_execs_never_hold_the_inits_exit_back() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    for n in 0..5 {
        let exec = format!("e{n}");
        shim.task
            .exec(&bundle.exec(&exec, &["/no/such/program"]))
            .unwrap();
        shim.task.start("c1", &exec).unwrap_err();
    }
    shim.task.kill("c1", "", 9, false).unwrap();
    bed.sink().wait_brief("exit c1 137");
    bed.finish(&bundle, &shim);
}

#[test]
fn row8_no_exec_exits_after_its_init() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sh("until [ -e /go ]; do usleep 10000; done"));
    let mut started = Vec::new();
    for n in 0..4 {
        let exec = format!("e{n}");
        let added = shim.task.exec(&bundle.exec(&exec, &["sleep", "1000"]));
        if added.is_err() {
            // The init was quicker than the machine.
            break;
        }
        if shim.task.start("c1", &exec).is_ok() {
            started.push(exec);
        }
    }
    // Only now may the init end: a busy machine takes its time for four execs.
    std::fs::write(bundle.rootfs().join("go"), "").unwrap();
    shim.task.wait("c1", "").unwrap();
    let init = bed.sink().position("exit c1 0");
    for exec in started {
        let brief = format!("exit c1/{exec} 137");
        let at = bed.sink().briefs().iter().position(|b| *b == brief);
        if at.is_none_or(|at| at > init) {
            known_difference!("go", "1.6.20 is older than the fix of #9719");
        }
        assert!(at.is_some_and(|at| at < init), "{:?}", bed.sink().briefs());
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn row9_a_hung_exec_does_not_keep_a_dead_container_running() {
    known_difference!("go", "the hold of an init's exit has no bound");
    let bed = Bed::new();
    let script = format!("[ $cmd = exec ] && {{ touch $DIR/hung; sleep 1000; }}; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task.exec(&bundle.exec("e1", &["true"])).unwrap();
    let start = shim.task.another().spawn(|t| t.start("c1", "e1").map(drop));
    eventually(SHORT, "the runtime hangs in exec", || {
        bed.path("hung").exists()
    });
    shim.task.kill("c1", "", 9, false).unwrap();
    bed.sink()
        .wait_for(Duration::from_secs(14), "the exit", |e| {
            e.brief() == "exit c1 137"
        });
    assert!(start.join().unwrap().is_err());
    eventually(SHORT, "stopped", || {
        shim.task.state("c1", "").unwrap().status() == Status::STOPPED
    });
    bed.finish(&bundle, &shim);
}

#[test]
fn row10_twenty_execs_at_once_take_seconds() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let began = Instant::now();
    let threads: Vec<_> = (0..20)
        .map(|n| {
            let bundle = bundle.clone();
            shim.task
                .spawn(move |t| run_exec(&bundle, t, &format!("e{n}"), "exit 0"))
        })
        .collect();
    threads
        .into_iter()
        .for_each(|t| assert_eq!(t.join().unwrap(), 0));
    let took = began.elapsed();
    if took > SHORT {
        known_difference!("go", "1.6.20 takes minutes (#8557)");
    }
    assert!(took < SHORT, "{took:?}");
    bed.finish(&bundle, &shim);
}

#[test]
fn row11_an_init_that_dies_at_once_does_not_lock_create() {
    let bed = Bed::new();
    // The init is dead before the runtime's create has returned.
    let script = format!(
        "if [ $cmd = create ]; then $REAL \"$@\" || exit; \
         for a in \"$@\"; do [ \"$was\" = --pid-file ] && kill -9 $(cat $a); was=$a; done; exit 0; \
         fi; {EXEC_REAL}"
    );
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    let created = shim.task.patience(SHORT).create(&bundle.create());
    assert_ne!(created.as_ref().err(), Some(&CallError::Timeout));
    if created.is_ok() {
        assert_eq!(
            shim.task
                .patience(SHORT)
                .wait("c1", "")
                .unwrap()
                .exit_status,
            137
        );
        bed.sink().wait_brief("exit c1 137");
        assert!(bed.sink().position("create c1") < bed.sink().position("exit c1 137"));
        bed.finish(&bundle, &shim);
    }
}

#[test]
fn row12_state_answers_while_a_create_is_slow() {
    known_difference!("go", "the map's lock is held over runc create before 2.3");
    known_difference!("v1", "the v1 flavour has one container per shim");
    let bed = Bed::new();
    let group = |s: Spec| s.annotation("io.containerd.runc.v2.group", "pod");
    bed.note_group("pod");
    let (first, shim) = bed.running("c1", &group(Spec::sleeper()));
    let mut second = bed.bundle("c2", &group(Spec::sleeper()));
    let script = format!(
        "[ $cmd = create ] && {{ touch $DIR/began; while ! [ -e $DIR/go ]; do sleep 0.02; done; }}; {EXEC_REAL}"
    );
    second.options.binary_name = bed.wrapper("slow", &script).display().to_string();
    let request = second.create();
    let create = shim
        .task
        .another()
        .spawn(move |t| t.create(&request).map(drop));
    eventually(SHORT, "create is slow", || bed.path("began").exists());
    let quick = shim.task.patience(Duration::from_secs(1));
    for _ in 0..10 {
        assert_eq!(quick.state("c1", "").unwrap().status(), Status::RUNNING);
    }
    assert_ne!(quick.state("c2", "").err(), Some(CallError::Timeout));
    quick.connect_task("c2").unwrap();
    bed.flag("go");
    create.join().unwrap().unwrap();
    shim.task.delete("c2", "").unwrap();
    bed.remove(&second);
    bed.end(&first, &shim);
    bed.remove(&first);
    bed.assert_clean();
}

#[test]
fn row13_shutdown_in_the_midst_of_events_does_not_panic() {
    let bed = Bed::new();
    for n in 0..4 {
        let id = format!("c{n}");
        let (bundle, shim) = bed.running(&id, &Spec::sleeper());
        shim.task
            .exec(&bundle.exec("e1", &["sleep", "1000"]))
            .unwrap();
        shim.task.start(&id, "e1").unwrap();
        shim.task.kill(&id, "", 9, true).unwrap();
        shim.task.wait(&id, "").unwrap();
        shim.task.delete(&id, "").unwrap();
        let shutdowns: Vec<_> = (0..3)
            .map(|_| {
                let id = id.clone();
                shim.task.spawn(move |t| t.shutdown(&id).map(drop))
            })
            .collect();
        shim.wait_gone();
        shutdowns.into_iter().for_each(|s| drop(s.join().unwrap()));
        if shim.log().contains("panic") {
            known_difference!(
                "go",
                "Go sends on a closed channel now and then, as reported"
            );
        }
        assert!(!shim.log().contains("panic"), "{}", shim.log());
        bed.sink().wait_brief(&format!("delete {id} 137"));
        bed.remove(&bundle);
    }
    bed.assert_clean();
}

#[test]
fn row14_delete_is_idempotent_while_the_shim_lives() {
    known_difference!(
        "go",
        "the second Delete is NotFound, and the daemon then skips Shutdown"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["sh", "-c", "exit 5"]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap();
    shim.task.wait("c1", "e1").unwrap();
    let exec = shim.task.delete("c1", "e1").unwrap();
    assert_eq!(shim.task.delete("c1", "e1").unwrap(), exec);
    shim.task.kill("c1", "", 9, false).unwrap();
    shim.task.wait("c1", "").unwrap();
    let init = shim.task.delete("c1", "").unwrap();
    assert_eq!(init.exit_status, 137);
    for _ in 0..3 {
        assert_eq!(shim.task.delete("c1", "").unwrap(), init);
    }
    bed.sink().wait_brief("delete c1 137");
    let deletes = bed
        .sink()
        .briefs()
        .iter()
        .filter(|b| b.starts_with("delete"))
        .count();
    assert_eq!(deletes, 1, "one event however often it is asked for");
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn row15_a_doubled_clean_up_finds_the_same_answer() {
    known_difference!("go", "the second Delete is NotFound or fails halfway");
    let bed = Bed::new();
    for n in 0..3 {
        let id = format!("c{n}");
        let (bundle, shim) = bed.running(&id, &Spec::sleeper());
        shim.task.kill(&id, "", 9, true).unwrap();
        shim.task.wait(&id, "").unwrap();
        let deletes: Vec<_> = (0..4)
            .map(|_| {
                let id = id.clone();
                shim.task
                    .another()
                    .spawn(move |t| t.delete(&id, "").unwrap())
            })
            .collect();
        let answers: Vec<_> = deletes.into_iter().map(|d| d.join().unwrap()).collect();
        assert!(answers.windows(2).all(|w| w[0] == w[1]), "{answers:?}");
        bed.shut(&bundle, &shim);
        bed.remove(&bundle);
    }
    bed.assert_clean();
}

/// A client that is gone before its Create is done; a later Delete and Shutdown leave nothing.
fn cancelled_create(by_timeout: bool) {
    known_difference!("go", "the client's deadline kills runc midway");
    let bed = Bed::new();
    let script = format!(
        "[ $cmd = create ] && {{ touch $DIR/began; while ! [ -e $DIR/go ]; do sleep 0.02; done; }}; {EXEC_REAL}"
    );
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    let client = shim.task.another();
    let client = if by_timeout {
        client.deadline(Duration::from_millis(300))
    } else {
        client
    };
    let request = bundle.create();
    let create = client.spawn(move |t| t.create(&request).map(drop));
    eventually(SHORT, "create is under way", || bed.path("began").exists());
    if !by_timeout {
        client.hang_up();
    }
    assert!(create.join().unwrap().is_err());
    bed.flag("go");
    // Whole or rolled back whole; both end in an orderly Delete.
    let found = holds(SHORT, || shim.task.state("c1", "").is_ok());
    if found {
        shim.task.delete("c1", "").unwrap();
    }
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn row16_a_create_whose_client_hangs_up_leaves_nothing() {
    cancelled_create(false);
}

#[test]
fn row16_a_create_whose_client_times_out_leaves_nothing() {
    cancelled_create(true);
}
