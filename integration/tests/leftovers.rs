//! What is left of a process or a container that failed, was killed or was deleted: descriptors,
//! loggers, calls of the runtime that are still under way.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
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

#[test]
fn the_shim_has_room_for_descriptors_and_its_runtime_the_limit_it_came_with() {
    known_difference!(
        "go",
        "whether a Go program does so depends on the version of Go"
    );
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 700, hard).unwrap();
    let bed = Bed::new();
    let script = format!("ulimit -Sn > $DIR/limit; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", shim.pid)).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    assert_eq!(soft, Some(hard.to_string().as_str()));
    let limit = std::fs::read_to_string(bed.path("limit")).unwrap();
    assert_eq!(limit.trim(), "700");
    bed.finish(&bundle, &shim);
}

#[test]
fn a_container_without_a_cgroup_of_its_own_has_pids() {
    let bed = Bed::new();
    let mut bundle = bed.bundle("c1", &Spec::sleeper());
    // Known by its name as runc, whose pids are read from the cgroup; and there is none.
    let script = format!(
        "[ $cmd = create ] || {EXEC_REAL}; $REAL \"$@\" || exit 1; for dir in /sys/fs/cgroup \
         /sys/fs/cgroup/*; do cat init.pid > $dir/cgroup.procs 2>/dev/null; done; exit 0"
    );
    let wrapper = bed.wrapper("runc.wrapper", &script);
    bundle.options.binary_name = wrapper.display().to_string();
    let shim = bed.start(&bundle);
    shim.task.create(&bundle.create()).unwrap();
    let pid = shim.task.start("c1", "").unwrap().pid;
    // containerd takes a shim without pids for a leaked one and ends it.
    if target::flavor() == target::Flavor::Wherry {
        let pids = shim.task.pids("c1").unwrap().processes;
        assert_eq!(pids.iter().map(|one| one.pid).collect::<Vec<_>>(), [pid]);
    }
    // A kill of all would look for them in the cgroup.
    shim.task.kill("c1", "", 9, false).unwrap();
    bed.finish(&bundle, &shim);
}
