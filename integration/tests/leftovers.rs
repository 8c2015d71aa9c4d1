//! What is left of a process or a container that failed, was killed or was deleted: descriptors,
//! loggers, calls of the runtime that are still under way.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

const EXEC_REAL: &str = "exec $REAL \"$@\"";

#[test]
fn terminals_that_never_came_leave_nothing() {
    known_difference!("go", "Go's descriptors come and go with its scheduler");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let failing = |exec: &str| {
        let (input, out) = (
            InputFifo::new(&bed.fifo("in")),
            OutputFifo::read(&bed.fifo("out")),
        );
        let mut request = bundle.exec_spec(exec, &Spec::new(&["/no/such"]).terminal());
        (request.stdin, request.stdout) = (input.path(), out.path());
        shim.task.exec(&request).unwrap();
        shim.task.start("c1", exec).unwrap_err();
        // Whoever reads learns that nothing will come.
        out.wait_end(SHORT);
        shim.task.delete("c1", exec).unwrap();
        std::fs::remove_file(input.path()).unwrap();
        std::fs::remove_file(out.path()).unwrap();
    };
    failing("e0");
    let before = Leaks::of_shim(shim.pid);
    for n in 1..6 {
        failing(&format!("e{n}"));
    }
    let mut more = Vec::new();
    let back = holds(SHORT, || {
        more = Leaks::of_shim(shim.pid).compare(&before);
        more.is_empty()
    });
    assert!(back, "the shim holds more than before: {more:#?}");
    bed.finish(&bundle, &shim);
}

#[test]
fn a_logger_that_does_not_end_is_ended_after_the_delete() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    // It neither reads nor notices the end of what it should read.
    let logger = bed.path("logger");
    let text = format!(
        "#!/bin/sh\necho $$ > {}\nexec 5>&-\nexec sleep 1000\n",
        bed.path("logger.pid").display()
    );
    std::fs::write(&logger, text).unwrap();
    std::fs::set_permissions(&logger, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let address = format!("binary://{}", logger.display());
    shim.task
        .create(&bundle.create_with("", &address, &address))
        .unwrap();
    shim.task.start("c1", "").unwrap();
    let pid: i32 = eventually_some(SHORT, "the logger runs", || {
        let text = std::fs::read_to_string(bed.path("logger.pid")).ok()?;
        text.trim().parse().ok()
    });
    bed.end(&bundle, &shim);
    eventually(SHORT, "the logger is ended", || !host::alive(pid));
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_kill_under_way_does_not_meet_the_next_container_of_the_same_id() {
    known_difference!("go", "Go's kill goes on");
    let bed = Bed::new();
    let script = format!(
        "[ $cmd = kill ] && [ ! -e $DIR/slow ] && {{ touch $DIR/slow; \
         while [ ! -e $DIR/go ]; do sleep 0.02; done; $REAL \"$@\"; touch $DIR/done; exit 0; }}; \
         {EXEC_REAL}"
    );
    // A shim of a group serves another container of the same id after the first.
    let spec = Spec::sh("exit 0").annotation("io.containerd.runc.v2.group", "g");
    let (bundle, shim) = bed.wrapped("c1", &spec, &script);
    bed.note_group("g");
    shim.task.create(&bundle.create()).unwrap();
    let kill = shim.task.spawn(|t| t.kill("c1", "", 9, true).map(drop));
    eventually(SHORT, "the kill hangs", || bed.path("slow").exists());
    shim.task.start("c1", "").unwrap();
    shim.task.wait("c1", "").unwrap();
    shim.task.delete("c1", "").unwrap();
    kill.join().unwrap().unwrap_err();
    let spec = Spec::sleeper().set("/linux/cgroupsPath", bundle.cgroup.as_str().into());
    std::fs::write(bundle.path.join("config.json"), spec.json().to_string()).unwrap();
    shim.task.create(&bundle.create()).unwrap();
    let pid = shim.task.start("c1", "").unwrap().pid;
    bed.flag("go");
    let killed = holds(Duration::from_secs(2), || bed.path("done").exists());
    assert!(!killed, "the old kill went on");
    assert!(host::alive(i32::try_from(pid).unwrap()));
    bed.finish(&bundle, &shim);
}

#[test]
fn a_runtime_that_hangs_in_create_and_in_delete_does_not_hold_the_delete() {
    known_difference!("go", "Go waits for the hung runtime for ever");
    let bed = Bed::new();
    let script = format!(
        "case $cmd in create) touch $DIR/hung; exec sleep 1000;; \
         delete) [ -e $DIR/go ] || exec sleep 1000;; esac; {EXEC_REAL}"
    );
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    let request = bundle.create();
    let create = shim.task.spawn(move |t| t.create(&request).map(drop));
    eventually(SHORT, "the runtime hangs", || bed.path("hung").exists());
    let patient = shim.task.another().patience(Duration::from_secs(20));
    patient.delete("c1", "").unwrap();
    create.join().unwrap().unwrap_err();
    bed.flag("go");
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}
