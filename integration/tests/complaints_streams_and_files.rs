//! What users of the Go shim complain of (issue 2, part 7), rows 17 to 25 of the contract's section 5:
//! output, terminals, loggers, files and sockets. Each test is named after the row and what it prevents.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::time::Instant;

use wherry_integration::client::{TASK_V2, TASK_V3};
use wherry_integration::prelude::*;

const EXEC_REAL: &str = "exec $REAL \"$@\"";

#[test]
fn row17_a_stuck_reader_does_not_eat_the_budget_of_delete() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("yes | head -c 500000"));
    let out = OutputFifo::read(&bed.fifo("out"));
    out.stop();
    shim.task
        .create(&bundle.create_with("", &out.path(), &bed.drain()))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    eventually(SHORT, "the writer is stuck", || {
        let init = shim.task.state("c1", "").unwrap().pid;
        std::fs::read_to_string(format!("/proc/{init}/wchan")).is_ok()
    });
    shim.task.kill("c1", "", 9, true).unwrap();
    shim.task.wait("c1", "").unwrap();
    let state = bed.runtime_root().join(bed.namespace()).join("c1");
    let delete = shim
        .task
        .another()
        .spawn(|t| (t.delete("c1", ""), Instant::now()));
    let began = Instant::now();
    if target::flavor() != target::Flavor::Go {
        let early = holds(Duration::from_secs(3), || !state.exists());
        assert!(early, "the runtime's delete does not wait for the drain");
    }
    let (deleted, at) = delete.join().unwrap();
    deleted.unwrap();
    assert!(at - began < Duration::from_secs(8), "{:?}", at - began);
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn row18_no_output_of_an_exec_is_lost_to_a_slow_reader() {
    known_difference!("go", "1.6 gives up draining after 2 s");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let out = OutputFifo::read(&bed.fifo("out"));
    out.stop();
    let mut request = bundle.exec("e1", &["sh", "-c", "yes | head -c 120000"]);
    request.stdout = out.path();
    request.stderr = bed.drain();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 0);
    let delete = shim
        .task
        .another()
        .spawn(|t| t.delete("c1", "e1").map(drop));
    delete.join().unwrap().unwrap();
    out.go_on();
    out.wait_end(SHORT);
    assert_eq!(out.total(), 120_000);
    bed.finish(&bundle, &shim);
}

#[test]
fn row19_a_terminal_whose_client_died_is_released() {
    known_difference!("go", "the console and its input stay open");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let before = Leaks::of_shim(shim.pid);
    let mut input = InputFifo::new(&bed.fifo("in"));
    let out = OutputFifo::read(&bed.fifo("out"));
    let mut request = bundle.exec_spec("e1", &Spec::sh("echo up; sleep 1000").terminal());
    request.stdin = input.path();
    request.stdout = out.path();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    input.open();
    out.wait_text(SHORT, "up");
    input.close();
    out.close();
    shim.task.kill("c1", "e1", 9, false).unwrap();
    shim.task.wait("c1", "e1").unwrap();
    shim.task.delete("c1", "e1").unwrap();
    eventually(SHORT, "nothing of the terminal is held", || {
        Leaks::of_shim(shim.pid).compare(&before).is_empty()
    });
    bed.finish(&bundle, &shim);
}

#[test]
fn row20_a_fifo_without_a_reader_holds_nobody_up() {
    known_difference!("go", "Create waits for the reader, up to 30 s");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo hi"));
    let input = InputFifo::new(&bed.fifo("in"));
    let out = OutputFifo::unread(&bed.fifo("out"));
    let began = Instant::now();
    let request = bundle.create_with(&input.path(), &out.path(), &bed.drain());
    shim.task.create(&request).unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task.wait("c1", "").unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    bed.finish(&bundle, &shim);
}

fn logger(bed: &Bed, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = bed.path("logger");
    let text = format!("#!/bin/sh\nD={}\n{script}\n", bed.dir().display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("binary://{}", path.display())
}

#[test]
fn row21_a_logger_that_dies_is_said_in_the_log() {
    known_difference!("go", "the death of a logger is ignored");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let address = logger(&bed, "exec 5>&-; exit 3");
    shim.task
        .create(&bundle.create_with("", &address, &address))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    eventually(SHORT, "the log says it", || shim.log().contains("logger"));
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn row21_a_logger_sees_the_end_before_delete() {
    known_difference!("go", "the shim holds the writing ends until Delete");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo hi"));
    let address = logger(
        &bed,
        "exec 5>&-; cat <&3 >/dev/null; cat <&4 >/dev/null; touch $D/end",
    );
    shim.task
        .create(&bundle.create_with("", &address, &address))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task.wait("c1", "").unwrap();
    eventually(SHORT, "the logger saw the end", || bed.path("end").exists());
    bed.finish(&bundle, &shim);
}

#[test]
fn row22_an_oom_at_the_very_start_is_not_missed() {
    let bed = Bed::new();
    for n in 0..3 {
        let id = format!("c{n}");
        let spec = Spec::new(&["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
        let (bundle, shim) = bed.running(&id, &spec.memory(16 << 20));
        assert_eq!(shim.task.wait(&id, "").unwrap().exit_status, 137);
        bed.sink().wait_brief(&format!("exit {id} 137"));
        let oom = format!("oom {id}");
        if !holds(SHORT, || bed.sink().briefs().contains(&oom)) {
            known_difference!("go", "the watch is armed after the start");
        }
        assert!(bed.sink().briefs().contains(&oom));
        bed.end(&bundle, &shim);
        bed.remove(&bundle);
    }
    bed.assert_clean();
}

#[test]
fn row23_failing_probes_do_not_fill_the_bundle() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let size = || -> u64 {
        let logs = host::files_below(&bundle.path, &|kind| kind.is_file());
        logs.iter()
            .filter_map(|p| std::fs::metadata(p).ok())
            .map(|m| m.len())
            .sum()
    };
    let probe = |n: u32| {
        let exec = format!("e{n}");
        shim.task
            .exec(&bundle.exec(&exec, &["/no/such/probe"]))
            .unwrap();
        shim.task.start("c1", &exec).unwrap_err();
        shim.task.delete("c1", &exec).unwrap();
    };
    (0..2).for_each(probe);
    let before = size();
    (2..12).for_each(probe);
    if size() > before {
        known_difference!("go", "log.json is appended to by each failing runc");
    }
    assert!(size() <= before, "{before} bytes, then {}", size());
    bed.finish(&bundle, &shim);
}

#[test]
fn row23_an_error_tells_of_its_own_call_not_of_an_older_one() {
    let bed = Bed::new();
    let script = format!("[ $cmd = pause ] && exit 1; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task
        .exec(&bundle.exec("e1", &["/no/such/probe"]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap_err();
    let error = shim.task.pause("c1").unwrap_err();
    if error.message().contains("/no/such/probe") {
        known_difference!(
            "go",
            "the text is the last line of a log that all calls share"
        );
    }
    assert!(!error.message().contains("/no/such/probe"), "{error}");
    bed.finish(&bundle, &shim);
}

#[test]
fn row24_the_socket_of_a_killed_shim_is_removed_by_delete() {
    known_difference!("go-v2", "the socket of a shim that was killed stays");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.kill();
    assert!(shim.socket.exists());
    bed.delete(&bundle).response();
    assert!(!shim.socket.exists());
    bed.discard(&bundle);
    bed.assert_clean();
}

#[test]
fn row24_delete_never_removes_the_socket_of_a_living_shim() {
    known_difference!("v1", "the v1 flavour has one container per shim");
    let bed = Bed::new();
    let group = |s: Spec| s.annotation("io.containerd.runc.v2.group", "pod");
    bed.note_group("pod");
    let (first, shim) = bed.running("c1", &group(Spec::sleeper()));
    let second = bed.bundle("c2", &group(Spec::sleeper()));
    shim.task.create(&second.create()).unwrap();
    shim.task.delete("c2", "").unwrap();
    bed.remove(&second);
    assert!(shim.socket.exists());
    assert_eq!(
        shim.task.another().state("c1", "").unwrap().status(),
        Status::RUNNING
    );
    bed.end(&first, &shim);
    bed.remove(&first);
    bed.assert_clean();
}

#[test]
fn row25_every_generation_of_daemons_understands_the_reply() {
    known_difference!("go", "each generation of Go shims serves one version only");
    known_difference!("v1", "a daemon sends the v1 flavour plain options");
    let bed = Bed::new();
    let protocols = [
        Protocol::Empty,
        Protocol::Options(wherry_integration::bundle::options_any(&bed.options())),
        Protocol::Bootstrap {
            options: None,
            socket_dir: None,
        },
    ];
    for (n, protocol) in protocols.into_iter().enumerate() {
        let id = format!("c{n}");
        let bundle = bed.bundle(&id, &Spec::sleeper());
        let mut request = bed.start_request(&bundle);
        let bootstrap = matches!(protocol, Protocol::Bootstrap { .. });
        request.protocol = protocol;
        let shim = bed.start_with(&request);
        match &shim.reply {
            Reply::Protobuf { version, .. } => assert!(bootstrap && *version == 3),
            Reply::Bare(_) => assert!(!bootstrap),
            Reply::Json(reply) => panic!("1.6 does not understand {reply:?}"),
        }
        for service in [TASK_V2, TASK_V3] {
            shim.task.service(service).connect_task(&id).unwrap();
        }
        bed.shut(&bundle, &shim);
        bed.remove(&bundle);
    }
    bed.assert_clean();
}
