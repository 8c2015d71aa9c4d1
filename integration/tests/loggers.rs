//! Logger programs (`binary://`, `binary-v2://`): when they count as ready, and that they get
//! the last line.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use wherry_integration::prelude::*;

/// The address of a logger that is a shell script; `$D` is the bed's folder.
fn logger(bed: &Bed, scheme: &str, script: &str) -> String {
    let path = bed.path("logger");
    let text = format!("#!/bin/sh\nD={}\n{script}\n", bed.dir().display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{scheme}://{}", path.display())
}

fn done(bed: &Bed, bundle: &Bundle, shim: &Shim) {
    bed.shut(bundle, shim);
    bed.remove(bundle);
    bed.assert_clean();
}

#[test]
fn the_second_version_wants_a_byte_and_takes_an_end_of_file_for_a_failure() {
    known_difference!("go", "binary-v2 came with the 2.3 shim");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    for script in ["exec 5>&-; exec sleep 1000", "exit 3", "kill -9 $$"] {
        let address = logger(&bed, "binary-v2", script);
        let error = shim
            .task
            .create(&bundle.create_with("", &address, &address))
            .unwrap_err();
        let name = bed.path("logger").display().to_string();
        assert!(error.message().contains(&name), "{script}: {error}");
        assert_eq!(
            shim.task.state("c1", "").unwrap_err().code(),
            Some(Code::NOT_FOUND)
        );
        eventually(SHORT, "the logger is gone", || {
            host::children(shim.pid).is_empty()
        });
    }
    done(&bed, &bundle, &shim);
}

#[test]
fn the_second_version_logs_once_it_has_said_a_byte() {
    known_difference!("go", "binary-v2 came with the 2.3 shim");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo a; echo b >&2"));
    let address = logger(
        &bed,
        "binary-v2",
        "printf x >&5; exec 5>&-; cat <&3 > $D/out; cat <&4 > $D/err; touch $D/end",
    );
    shim.task
        .create(&bundle.create_with("", &address, &address))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task.wait("c1", "").unwrap();
    eventually(SHORT, "the logger has seen both ends", || {
        bed.path("end").exists()
    });
    assert_eq!(fs::read_to_string(bed.path("out")).unwrap(), "a\n");
    assert_eq!(fs::read_to_string(bed.path("err")).unwrap(), "b\n");
    bed.finish(&bundle, &shim);
}

#[test]
fn a_logger_of_an_exec_that_fails_fails_the_exec_alone() {
    known_difference!("go", "binary-v2 came with the 2.3 shim");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let mut request = bundle.exec("e1", &["true"]);
    request.stdout = logger(&bed, "binary-v2", "exit 0");
    request.stderr.clone_from(&request.stdout);
    shim.task.exec(&request).unwrap();
    let error = shim.task.start("c1", "e1").unwrap_err();
    assert!(error.message().contains("logger"), "{error}");
    shim.task.delete("c1", "e1").unwrap();
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_loggers_death_is_said_in_the_shims_log_with_its_name_and_pid() {
    known_difference!("go", "the death of a logger is ignored (#12490)");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let address = logger(&bed, "binary", "echo $$ > $D/pid; exec 5>&-; cat <&3");
    shim.task
        .create(&bundle.create_with("", &address, &address))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    let pid = fs::read_to_string(bed.path("pid")).unwrap();
    host::kill_hard(pid.trim().parse().unwrap());
    let name = bed.path("logger").display().to_string();
    eventually(SHORT, "the log says it", || {
        let log = shim.log();
        log.lines()
            .any(|l| l.contains("level=error") && l.contains(&name) && l.contains(pid.trim()))
    });
    bed.finish(&bundle, &shim);
}

#[test]
fn the_last_lines_reach_the_logger_although_delete_follows_at_once() {
    known_difference!(
        "go",
        "Delete sends SIGTERM while the tail is still in the pipe"
    );
    for _ in 0..3 {
        let bed = Bed::new();
        // Fits into the pipe, so that the container ends before its logger has read.
        let (bundle, shim) = bed.shim("c1", &Spec::sh("seq 1 10000"));
        let address = logger(&bed, "binary", "exec 5>&-; cat <&3 > $D/out; touch $D/end");
        shim.task
            .create(&bundle.create_with("", &address, &address))
            .unwrap();
        shim.task.start("c1", "").unwrap();
        shim.task.wait("c1", "").unwrap();
        shim.task.delete("c1", "").unwrap();
        eventually(SHORT, "the logger is done", || bed.path("end").exists());
        let text = fs::read_to_string(bed.path("out")).unwrap();
        assert!(text.starts_with("1\n2\n") && text.ends_with("\n10000\n"));
        assert_eq!(text.lines().count(), 10_000);
        done(&bed, &bundle, &shim);
    }
}

#[test]
fn a_slow_logger_that_ignores_sigterm_gets_the_tail_after_delete() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("seq 1 10000"));
    let address = logger(
        &bed,
        "binary",
        "trap '' TERM; exec 5>&-; while ! [ -e $D/go ]; do sleep 0.02; done; \
         cat <&3 > $D/out; touch $D/end",
    );
    shim.task
        .create(&bundle.create_with("", &address, &address))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task.wait("c1", "").unwrap();
    let delete = shim.task.another().spawn(|t| t.delete("c1", "").map(drop));
    // Longer than the second after which a logger is told to end.
    assert!(!holds(Duration::from_millis(1500), || bed
        .path("end")
        .exists()));
    bed.flag("go");
    delete.join().unwrap().unwrap();
    eventually(SHORT, "the logger is done", || bed.path("end").exists());
    let text = fs::read_to_string(bed.path("out")).unwrap();
    assert_eq!(text.lines().count(), 10_000);
    done(&bed, &bundle, &shim);
}
