//! What waits for what, and what comes once: an init's exit for its execs, a Delete for the output,
//! an OOM. The mutation round found that nothing else noticed when these did not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use nix::sys::signal::Signal;
use wherry_integration::prelude::*;

/// Long enough to see that something does not happen, well below the bounds of the waits.
const A_WHILE: Duration = Duration::from_millis(700);

#[test]
fn an_exec_that_outlives_its_init_holds_the_inits_exit() {
    // In a PID namespace of its own the kernel sees to that order. In a shared one the shim must,
    // here with a runtime that does not get round to killing what is left.
    known_difference!("go", "1.6.20 is older than the fix of #9719");
    let bed = Bed::new();
    let spec = Spec::sh("until [ -e /go ]; do usleep 10000; done").without_namespace("pid");
    let (bundle, shim) = bed.wrapped("c1", &spec, "[ $cmd = kill ] && exit 0; exec $REAL \"$@\"");
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    let request = bundle.exec("e1", &["sleep", "1000"]);
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    std::fs::write(bundle.rootfs().join("go"), "").unwrap();
    let told = |prefix: &str| bed.sink().briefs().iter().any(|b| b.starts_with(prefix));
    assert!(
        !holds(A_WHILE, || told("exit c1 ")),
        "{:?}",
        bed.sink().briefs()
    );
    shim.task.kill("c1", "e1", 9, false).unwrap();
    bed.sink().wait_brief("exit c1 0");
    assert!(bed.sink().position("exit c1/e1 137") < bed.sink().position("exit c1 0"));
    bed.finish(&bundle, &shim);
}

/// Prints more than a FIFO holds. A reader that was told to stop takes what its last look brings:
/// nothing or the first line, since the rest comes long after that look.
const TALK: &str = "echo x; usleep 300000; yes | head -c 120000";

/// Deletes a process whose output a stopped reader holds back, and sees Delete wait for it.
fn delete_waits(shim: &Shim, exec: &str, out: &OutputFifo) {
    let exec = exec.to_owned();
    let delete = shim.task.spawn(move |t| t.delete("c1", &exec).map(drop));
    assert!(
        !holds(A_WHILE, || delete.is_finished()),
        "Delete did not wait for the output"
    );
    out.go_on();
    eventually(SHORT, "Delete answers", || delete.is_finished());
    delete.join().unwrap().unwrap();
    out.wait_end(SHORT);
    assert_eq!(out.total(), 120_002);
}

#[test]
fn delete_waits_for_the_output_of_an_init() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh(TALK));
    let out = OutputFifo::read(&bed.fifo("out"));
    out.stop();
    let request = bundle.create_with("", &out.path(), &bed.drain());
    shim.task.create(&request).unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task.wait("c1", "").unwrap();
    delete_waits(&shim, "", &out);
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn delete_waits_for_the_output_of_an_exec() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let out = OutputFifo::read(&bed.fifo("out"));
    out.stop();
    let mut request = bundle.exec("e1", &["sh", "-c", TALK]);
    request.stdout = out.path();
    request.stderr = bed.drain();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    shim.task.wait("c1", "e1").unwrap();
    delete_waits(&shim, "e1", &out);
    bed.finish(&bundle, &shim);
}

#[test]
fn the_runtime_is_not_started_with_sigpipe_ignored() {
    // A Rust program ignores SIGPIPE; a runtime or container that inherits that writes on for ever.
    let bed = Bed::new();
    let script = "grep ^SigIgn: /proc/$$/status > $DIR/ignored; exec $REAL \"$@\"";
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), script);
    shim.task.create(&bundle.create()).unwrap();
    let line = std::fs::read_to_string(bed.path("ignored")).unwrap();
    let mask = line.trim_start_matches("SigIgn:").trim();
    let sigpipe = 1 << (13 - 1);
    assert_eq!(
        u64::from_str_radix(mask, 16).unwrap() & sigpipe,
        0,
        "{line}"
    );
    bed.finish(&bundle, &shim);
}

#[test]
fn one_kill_for_memory_is_told_once() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper().memory(16 << 20));
    let hog = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    shim.task
        .exec(&bundle.exec("e1", &["sh", "-c", hog]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 137);
    bed.sink().wait_brief("oom c1");
    // The counter is read again at each exit; it has not grown since.
    for exec in ["e2", "e3"] {
        shim.task.exec(&bundle.exec(exec, &["true"])).unwrap();
        shim.task.start("c1", exec).unwrap();
        shim.task.wait("c1", exec).unwrap();
        bed.sink().wait_brief(&format!("exit c1/{exec} 0"));
    }
    let briefs = bed.sink().briefs();
    assert_eq!(
        briefs.iter().filter(|b| *b == "oom c1").count(),
        1,
        "{briefs:?}"
    );
    bed.finish(&bundle, &shim);
}

/// An OOM that a shim without time finds together with the exit. `meanwhile` is what happens before.
fn late_oom(meanwhile: fn(&Bed)) {
    let bed = Bed::new();
    let hog = "until [ -e /go ]; do usleep 10000; done; \
               exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    let (bundle, shim) = bed.running("c1", &Spec::sh(hog).memory(16 << 20));
    let init = shim.task.state("c1", "").unwrap().pid;
    let init = i32::try_from(init).unwrap();
    bed.sink().wait_brief("start c1");
    host::signal(shim.pid, Signal::SIGSTOP);
    std::fs::write(bundle.rootfs().join("go"), "").unwrap();
    eventually(LONG, "the init is dead", || host::zombie(init));
    meanwhile(&bed);
    host::signal(shim.pid, Signal::SIGCONT);
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    bed.sink().wait_brief("exit c1 137");
    assert_eq!(bed.sink().briefs()[2..], ["oom c1", "exit c1 137"]);
    bed.finish(&bundle, &shim);
}

#[test]
fn an_oom_and_an_exit_that_are_seen_at_once_are_told_in_order() {
    known_difference!("go", "before 2.3 the OOM may come after the exit");
    for _ in 0..3 {
        late_oom(|_| {});
    }
}

#[test]
fn an_oom_whose_cgroup_is_gone_is_told_as_well() {
    known_difference!("go", "it knows of no OOM but from the cgroup's counters");
    // As systemd does with a scope in which nothing lives any more.
    late_oom(|bed| {
        let cgroup = bed.cgroup("c1");
        eventually(SHORT, "the cgroup can be removed", || {
            host::remove_empty_cgroup(&cgroup);
            host::cgroups(&cgroup).is_empty()
        });
    });
}

/// What SIGUSR1 makes a shim say of its container.
fn dump(shim: &Shim) -> String {
    let before = shim.log().len();
    host::signal(shim.pid, Signal::SIGUSR1);
    let said = || shim.log().get(before..).unwrap_or_default().to_owned();
    eventually(SHORT, "a dump", || said().contains("exec_tombstones="));
    said()
}

#[test]
fn waits_whose_clients_have_gone_are_forgotten() {
    known_difference!("go", "Go has no dump of its state, and keeps such a Wait");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let request = bundle.exec("e1", &["sleep", "1000"]);
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    let clients: Vec<_> = (0..6).map(|_| shim.task.another()).collect();
    let waits: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(n, c)| {
            let exec = if n % 2 == 0 { "" } else { "e1" };
            c.spawn(move |t| t.wait("c1", exec).err())
        })
        .collect();
    let counted = |n: usize| dump(&shim).matches(&format!("waiters={n}")).count() == 2;
    eventually(SHORT, "three waits for each", || counted(3));
    clients.iter().for_each(TaskClient::hang_up);
    for wait in waits {
        assert_eq!(wait.join().unwrap(), Some(CallError::Closed));
    }
    eventually(SHORT, "no wait for either", || counted(0));
    bed.finish(&bundle, &shim);
}
