//! Containers run by `wherry`, under wherryd and under Debian's containerd.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests run programs, and end where something is not as it must be"
)]

mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Bed, Running, eventually, on_both_engines, run, wait};

on_both_engines! {
    output_and_exit_code_are_the_containers
    stdin_reaches_the_container_and_its_end_too
    a_container_in_the_background_is_seen_and_entered_and_removed
    the_spec_is_as_it_was_asked_for
    signals_reach_the_container_and_nothing_is_left
    a_deaf_container_dies_of_the_third_interrupt
    all_output_arrives
    a_reader_that_leaves_ends_the_container
    events_are_told_to_programs
    without_a_daemon_one_can_leave
    the_daemon_may_die_while_a_container_is_waited_for
    a_container_that_ends_without_a_daemon_is_told_right
}

fn output_and_exit_code_are_the_containers(bed: &mut Bed) {
    let script = "echo to stdout; echo to stderr >&2; exit 7";
    let ran = bed.run(&["--rm", "sh", "-c", script]);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert_eq!(ran.stdout, "to stdout\n");
    assert_eq!(ran.stderr, "to stderr\n");
    let killed = bed.run(&["--rm", "sh", "-c", "exec sh -c 'kill -9 $$'; exit 137"]);
    assert!(killed.stderr.is_empty(), "{killed:?}");

    let said = bed.run(&["--rm", "nothing-of-the-kind"]).failed(127);
    assert!(said.contains("nothing-of-the-kind"), "{said}");
    fs::write(Path::new(&bed.rootfs()).join("not-for-execution"), "").unwrap();
    bed.run(&["--rm", "/not-for-execution"]).failed(126);
    bed.run(&["--runtime", "io.containerd.nothing.v9", "sh"])
        .failed(125);
    assert!(bed.all().is_empty(), "what failed is gone: {:?}", bed.all());

    bed.run(&["--name", "kept", "sh", "-c", "exit 3"]).failed(3);
    let kept = bed.all();
    assert_eq!(kept[0]["status"], "stopped");
    assert_eq!(kept[0]["exit_status"], 3);
    let said = bed.run(&["--name", "kept", "sh"]).failed(125);
    assert!(said.contains("kept already"), "{said}");
    assert_eq!(bed.all().len(), 1);
}

fn stdin_reaches_the_container_and_its_end_too(bed: &mut Bed) {
    let mut command = bed.run_command(&["--rm", "-i", "tr", "a-z", "A-Z"]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(b"whisper\n").unwrap();
    drop(stdin);
    assert_eq!(running.end().ok(), "WHISPER\n");
    // Without -i there is none.
    assert_eq!(bed.run(&["--rm", "wc", "-c"]).ok().trim(), "0");
}

fn a_container_in_the_background_is_seen_and_entered_and_removed(bed: &mut Bed) {
    let script = "trap 'exit 9' TERM; while :; do sleep 0.1; done";
    let flags = ["-d", "--name", "bg", "--label", "a=b", "-e", "OF=container"];
    let line = [&flags[..], &["sh", "-c", script]].concat();
    assert_eq!(bed.run(&line).ok(), "bg\n");

    let table = bed.wherry(&["ps"]).ok();
    let head = table.lines().next().unwrap();
    assert!(
        head.starts_with("ID") && head.ends_with("COMMAND"),
        "{table}"
    );
    assert!(!table.contains('\x1b'), "colour into a pipe: {table:?}");
    assert_eq!(bed.wherry(&["ps", "-q"]).ok(), "bg\n");
    let all = bed.all();
    assert_eq!(all[0]["status"], "running");
    assert_eq!(all[0]["labels"]["a"], "b");
    assert_eq!(all[0]["runtime"], "io.containerd.runc.v2");
    assert_eq!(all[0]["command"][2], script);

    let exec = bed.wherry(&["exec", "bg", "sh", "-c", "echo in; exit 4"]);
    assert_eq!((exec.code, exec.stdout.as_str()), (Some(4), "in\n"));
    let script = "echo $OF $MORE; pwd; id -u; id -g";
    let flags = ["exec", "-e", "MORE=exec", "-w", "/mnt", "-u", "app", "bg"];
    let line = [&flags[..], &["sh", "-c", script]].concat();
    assert_eq!(bed.wherry(&line).ok(), "container exec\n/mnt\n1000\n1001\n");
    bed.wherry(&["exec", "bg", "nothing"]).failed(127);
    bed.wherry(&["exec", "nobody", "sh"]).failed(125);
    let mut command = bed.command();
    let line = ["exec", "-i", "bg", "cat"];
    let mut running = Running::start(command.args(line).stdin(Stdio::piped()));
    running.child.stdin.take().unwrap().write_all(b"x").unwrap();
    assert_eq!(running.end().ok(), "x");
    bed.wherry(&["exec", "-d", "bg", "touch", "/tmp/touched"])
        .ok();
    let touched = Path::new(&bed.rootfs()).join("tmp/touched");
    eventually("the exec in the background has run", || touched.exists());

    let inspected = bed.wherry(&["inspect", "bg"]).ok();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected[0]["task"]["status"], "running");
    assert_eq!(inspected[0]["container"]["spec"]["hostname"], "bg");

    let said = bed.wherry(&["rm", "bg"]).failed(1);
    assert!(said.contains("bg is running"), "{said}");
    let ran = bed.wherry(&["kill", "-s", "sigterm", "nobody", "bg"]);
    assert!(ran.failed(1).contains("nobody: no such container"));
    bed.wait_status("bg", "stopped");
    assert_eq!(bed.all()[0]["exit_status"], 9);
    assert_eq!(bed.wherry(&["ps", "-q"]).ok(), "");
    assert!(bed.wherry(&["ps", "-a"]).ok().contains("stopped (9)"));
    bed.wherry(&["rm", "bg"]).ok();
    let said = bed.wherry(&["rm", "bg"]).failed(1);
    assert!(said.contains("bg: no such container"), "{said}");

    let log = bed.dir.path().join("out.log");
    let flags = ["-d", "--name", "loud", "--log", log.to_str().unwrap()];
    let line = [&flags[..], &["sh", "-c", "echo logged; exec sleep 1000"]].concat();
    bed.run(&line).ok();
    eventually("the log is written", || {
        fs::read_to_string(&log).is_ok_and(|text| text == "logged\n")
    });
    bed.wherry(&["rm", "-f", "loud"]).ok();
    assert!(bed.all().is_empty());
}

fn the_spec_is_as_it_was_asked_for(bed: &mut Bed) {
    let shared = bed.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "from outside\n").unwrap();
    let volume = format!("{}:/mnt:ro", shared.display());
    let script = "cat /mnt/file; touch /mnt/x /y 2>/dev/null; echo $?; hostname; pwd; id -u; \
                  echo $A; dd if=/dev/zero of=/dev/null bs=1 count=1 2>/dev/null && echo dev; \
                  ls /sys/class/net";
    let flags = "--rm --read-only --hostname boat -w /tmp -u app -e A=1 -e A=2 --memory 64m \
                 --cpus 0.5 --pids-limit 32 --cap-drop ALL --volume";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let line = [&flags[..], &[&volume, "sh", "-c", script]].concat();
    let seen = bed.run(&line).ok();
    assert_eq!(seen, "from outside\n1\nboat\n/tmp\n1000\n2\ndev\nlo\n");
    // Another OCI runtime, and the host's network.
    let runtime = bed.dir.path().join("another-runc");
    let called = bed.dir.path().join("called");
    let script = format!("#!/bin/sh\ntouch {}\nexec runc \"$@\"\n", called.display());
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
    let flags = [
        "--rm",
        "--net",
        "host",
        "--runc-binary",
        runtime.to_str().unwrap(),
    ];
    let seen = bed
        .run(&[&flags[..], &["ls", "/sys/class/net"]].concat())
        .ok();
    assert!(called.exists());
    let host = fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(seen.lines().count(), host, "{seen}");
}

fn signals_reach_the_container_and_nothing_is_left(bed: &mut Bed) {
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut command = bed.run_command(&["--rm", "--name", "s", "sh", "-c", script]);
    let out = bed.dir.path().join("out");
    command
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap());
    let mut child = command.spawn().unwrap();
    let told = || fs::read_to_string(&out).unwrap();
    eventually("the trap is set", || told() == "ready\n");
    run(Command::new("kill").arg(child.id().to_string())).ok();
    assert_eq!(wait(&mut child).unwrap().code(), Some(9));
    assert_eq!(told(), "ready\ncaught\n");
    assert!(bed.all().is_empty());
    let left = fs::read_dir("/run").unwrap().flatten();
    let prefix = "wherry-io-";
    let mut left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let ours = left.find(|folder| {
        // Other tests have theirs; ours would name a FIFO that nobody holds.
        !folder.path().join("stdout").exists()
    });
    assert!(ours.is_none(), "{ours:?}");
}

fn a_deaf_container_dies_of_the_third_interrupt(bed: &mut Bed) {
    // The first process of a container does not feel signals it has not asked for.
    let mut command = bed.run_command(&["--rm", "--name", "deaf", "sleep", "1000"]);
    let running = Running::start(command.stdin(Stdio::null()));
    bed.wait_status("deaf", "running");
    for _ in 0..3 {
        running.signal("INT");
        // Signals that are pending together are one.
        eventually("the signal is taken", || {
            let status = format!("/proc/{}/status", running.child.id());
            let status = fs::read_to_string(status).unwrap_or_default();
            !status
                .lines()
                .any(|line| line.starts_with("ShdPnd:") && !line.ends_with("0000000000000000"))
        });
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    running.end().failed(137);
    assert!(bed.all().is_empty());
}

fn all_output_arrives(bed: &mut Bed) {
    let script = "dd if=/dev/zero bs=1048576 count=64 2>/dev/null";
    let mut command = bed.run_command(&["--rm", "sh", "-c", script]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    // A reader that takes its time loses nothing.
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() + 1, 64 << 20);
    assert_eq!(wait(&mut child).unwrap().code(), Some(0));
}

fn a_reader_that_leaves_ends_the_container(bed: &mut Bed) {
    let mut command = bed.run_command(&["--rm", "yes"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut line = [0; 2];
    stdout.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"y\n");
    drop(stdout);
    let status = wait(&mut child).expect("it ends");
    assert!(matches!(status.code(), Some(137 | 141)), "{status:?}");
    assert!(bed.all().is_empty());
}

fn events_are_told_to_programs(bed: &mut Bed) {
    let mut command = bed.command();
    command.args(["events", "--format", "json", "topic==\"/tasks/exit\""]);
    let out = bed.dir.path().join("events");
    let file = fs::File::create(&out).unwrap();
    let mut watcher = command.stdin(Stdio::null()).stdout(file).spawn().unwrap();
    let told = || fs::read_to_string(&out).unwrap_or_default();
    // Whether the watcher is there yet is seen by an event only.
    eventually("an exit is told", || {
        bed.run(&["--rm", "sh", "-c", "exit 5"]).failed(5);
        told().contains('\n')
    });
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    let line = told();
    let event: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_eq!(event["topic"], "/tasks/exit");
    assert_eq!(event["namespace"], bed.namespace);
    assert_eq!(event["event"]["exit_status"], 5);
}

/// A container that ends with 6 when a file appears, and `wherry run` that waits for it.
fn waiting(bed: &Bed, name: &str) -> (Running, std::path::PathBuf) {
    let script = "echo before; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo after; exit 6";
    let mut command = bed.run_command(&["--rm", "--name", name, "sh", "-c", script]);
    let running = Running::start(command.stdin(Stdio::null()));
    bed.wait_status(name, "running");
    (running, Path::new(&bed.rootfs()).join("tmp/go"))
}

fn the_daemon_may_die_while_a_container_is_waited_for(bed: &mut Bed) {
    let (running, go) = waiting(bed, "w");
    bed.kill();
    bed.start();
    bed.wait_status("w", "running");
    fs::write(go, "").unwrap();
    let ran = running.end();
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert_eq!(ran.stdout, "before\nafter\n");
    assert!(bed.all().is_empty());
}

fn without_a_daemon_one_can_leave(bed: &mut Bed) {
    let (running, _) = waiting(bed, "w");
    bed.kill();
    running.signal("INT");
    let said = running.end().failed(125);
    assert!(said.contains("w is left to itself"), "{said}");
    assert!(
        said.contains("w is not removed: the daemon is away"),
        "{said}"
    );
    bed.start();
    assert_eq!(bed.status("w").as_deref(), Some("running"));
}

fn a_container_that_ends_without_a_daemon_is_told_right(bed: &mut Bed) {
    let (running, go) = waiting(bed, "w");
    let pid = bed.pid("w");
    bed.kill();
    fs::write(go, "").unwrap();
    eventually("it has ended", || {
        !Path::new(&format!("/proc/{pid}/root/")).exists()
    });
    bed.start();
    let ran = running.end();
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert_eq!(ran.stdout, "before\nafter\n");
    assert!(bed.all().is_empty());
}
