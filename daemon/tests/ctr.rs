//! Debian's `ctr`, unmodified, against the daemon: with our shims and with Debian's Go shims.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

mod common;

use std::fs;

use common::{Bed, Shims, eventually, run};

#[test]
fn version_namespaces_and_plugins() {
    let bed = Bed::new(Shims::Ours);
    let version = bed.ctr(&["version"]).ok();
    let server = version.split("Server:").nth(1).unwrap();
    assert!(
        server.contains("1.7") && server.contains("UUID"),
        "{version}"
    );

    bed.ctr(&["ns", "create", "one", "color=red", "empty="])
        .ok();
    let again = bed.ctr(&["ns", "create", "one"]);
    assert_ne!(again.code, Some(0));
    assert!(again.stderr.contains("already exists"), "{again:?}");
    bed.ctr(&["ns", "label", "one", "color=blue"]).ok();
    let list = bed.ctr(&["ns", "ls"]).ok();
    assert!(
        list.contains("color=blue") && !list.contains("empty"),
        "{list}"
    );
    bed.ctr(&["ns", "rm", "one"]).ok();
    assert!(!bed.ctr(&["ns", "ls"]).ok().contains("one"));
    assert!(
        bed.ctr(&["plugins", "ls"])
            .ok()
            .contains("io.containerd.runtime.v2")
    );
    let some = bed.ctr(&["plugins", "ls", "id==tasks"]).ok();
    assert!(some.contains("tasks") && !some.contains("leases"), "{some}");
    bed.ctr(&["leases", "create", "--id", "l1", "k=v"]).ok();
    assert!(bed.ctr(&["leases", "ls"]).ok().contains("k=v"));
    bed.ctr(&["leases", "rm", "l1"]).ok();
}

#[test]
fn records_of_containers_are_kept_listed_and_labelled() {
    let mut bed = Bed::new(Shims::Ours);
    let rootfs = bed.rootfs();
    let create = ["c", "create", "--rootfs", &rootfs, "c1", "/bin/sh"];
    bed.ctr(&create).ok();
    assert!(bed.ctr(&create).stderr.contains("already exists"));
    bed.ctr(&["c", "label", "c1", "who=me"]).ok();
    let before = bed.ctr(&["c", "info", "c1"]).ok();
    assert!(before.contains(r#""who": "me""#), "{before}");

    bed.kill();
    bed.start();
    assert_eq!(bed.ctr(&["c", "info", "c1"]).ok(), before);
    assert_eq!(bed.ctr(&["c", "ls", "-q", "labels.who==me"]).ok(), "c1\n");
    assert_eq!(bed.ctr(&["c", "ls", "-q", "id!=c1"]).ok(), "");
    let namespace = bed.namespace.clone();
    let refused = bed.ctr(&["ns", "rm", &namespace]);
    assert!(refused.stderr.contains("must be empty"), "{refused:?}");
    bed.ctr(&["c", "rm", "c1"]).ok();
    assert!(bed.ctr(&["c", "info", "c1"]).stderr.contains("not found"));
    bed.ctr(&["ns", "rm", &namespace]).ok();
}

fn run_to_its_end(shims: Shims) {
    let bed = Bed::new(shims);
    let rootfs = bed.rootfs();
    let script = "echo out; echo err >&2; exit 7";
    let ran = bed.ctr(&[
        "run", "--rm", "--rootfs", &rootfs, "r1", "/bin/sh", "-c", script,
    ]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(7), "out\n"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("err"), "{ran:?}");
    assert!(!bed.bundle("r1").exists());
    assert_eq!(bed.ctr(&["c", "ls", "-q"]).ok(), "");
    assert_eq!(bed.ctr(&["leases", "ls", "-q"]).ok(), "");
}

#[test]
fn run_prints_and_returns_the_exit_code() {
    run_to_its_end(Shims::Ours);
}

#[test]
fn run_prints_and_returns_the_exit_code_with_the_go_shim() {
    run_to_its_end(Shims::Go);
}

fn whole_life(shims: Shims) {
    let bed = Bed::new(shims);
    bed.run_detached("t1");
    let (pid, status) = bed.task("t1").unwrap();
    assert_eq!(status, "RUNNING");
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    for file in [
        "config.json",
        "address",
        "log",
        "work/",
        "rootfs/",
        "shim-binary-path",
    ] {
        assert!(bed.bundle("t1").join(file).exists(), "{file}");
    }

    let exec = bed.ctr(&[
        "task",
        "exec",
        "--exec-id",
        "e1",
        "t1",
        "/bin/sh",
        "-c",
        "echo in; exit 3",
    ]);
    assert_eq!(
        (exec.code, exec.stdout.as_str()),
        (Some(3), "in\n"),
        "{exec:?}"
    );
    let pids = bed.ctr(&["task", "ps", "t1"]).ok();
    assert!(pids.contains(&pid.to_string()), "{pids}");
    let metrics = bed.ctr(&["task", "metrics", "t1"]).ok();
    assert!(
        metrics.contains("memory") && metrics.contains("t1"),
        "{metrics}"
    );

    let names = bed.ctr(&["task", "ls", "-q"]).ok();
    assert_eq!(names, "t1\n");
    let again = bed.ctr(&[
        "task",
        "exec",
        "--exec-id",
        "e1",
        "t1",
        "/bin/sh",
        "-c",
        "exit 0",
    ]);
    assert_eq!(
        again.code,
        Some(0),
        "an id of an exec that has ended is free: {again:?}"
    );
    let missing = bed.ctr(&["task", "exec", "--exec-id", "e2", "t1", "/no/such/program"]);
    assert_ne!(missing.code, Some(0));
    assert!(missing.stderr.contains("no such file"), "{missing:?}");
    let json = bed.ctr(&["task", "metrics", "--format", "json", "t1"]).ok();
    assert!(json.contains("\"pids\""), "{json}");

    bed.ctr(&["task", "pause", "t1"]).ok();
    bed.wait_status("t1", "PAUSED");
    bed.ctr(&["task", "resume", "t1"]).ok();
    bed.wait_status("t1", "RUNNING");

    let rootfs = bed.rootfs();
    let taken = bed.ctr(&["run", "-d", "--rootfs", &rootfs, "t1", "/bin/sh"]);
    assert!(taken.stderr.contains("already exists"), "{taken:?}");
    assert_ne!(bed.ctr(&["task", "rm", "t1"]).code, Some(0), "it runs");
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "t1"]).ok();
    bed.wait_status("t1", "STOPPED");
    let removed = bed.ctr(&["task", "rm", "t1"]);
    assert!(
        removed.stderr.contains("non-zero exit code 9"),
        "{removed:?}"
    );
    assert!(
        bed.ctr(&["task", "kill", "t1"])
            .stderr
            .contains("not found")
    );
    assert!(!bed.bundle("t1").exists());
    bed.ctr(&["c", "rm", "t1"]).ok();
}

#[test]
fn a_detached_container_through_its_life() {
    whole_life(Shims::Ours);
}

#[test]
fn a_detached_container_through_its_life_with_the_go_shim() {
    whole_life(Shims::Go);
}

#[test]
fn what_runs_as_a_child_of_exec_is_killed_with_it() {
    let bed = Bed::new(Shims::Ours);
    bed.run_detached("k1");
    let out = bed.dir.path().join("exec.out");
    let mut command = bed.ctr_command();
    command.args([
        "task",
        "exec",
        "--exec-id",
        "long",
        "k1",
        "/bin/busybox",
        "sleep",
        "1000",
    ]);
    let mut exec = common::background(&mut command, &out);
    eventually("it runs", || {
        bed.ctr(&["task", "ps", "k1"]).stdout.contains("long")
    });
    bed.ctr(&["task", "kill", "--exec-id", "long", "-s", "SIGKILL", "k1"])
        .ok();
    assert_eq!(exec.wait(), Some(137));
    bed.ctr(&["task", "kill", "--all", "-s", "SIGKILL", "k1"])
        .ok();
    bed.wait_status("k1", "STOPPED");
    bed.ctr(&["task", "rm", "k1"]);
    bed.ctr(&["c", "rm", "k1"]).ok();
}

#[test]
fn events_come_in_order() {
    let bed = Bed::new(Shims::Ours);
    let out = bed.dir.path().join("events");
    let mut watcher = common::background(bed.ctr_command().arg("events"), &out);
    let seen = || fs::read_to_string(&out).unwrap_or_default();
    // The subscription is known to be there when a first event comes through.
    let mut probe = 0;
    eventually("events are watched", || {
        probe += 1;
        bed.ctr(&["ns", "create", &format!("probe{probe}")]).ok();
        seen().contains("/namespaces/create")
    });
    let rootfs = bed.rootfs();
    bed.ctr(&[
        "run", "--rm", "--rootfs", &rootfs, "ev", "/bin/sh", "-c", "exit 5",
    ]);
    eventually("the last event", || seen().contains("/containers/delete"));
    watcher.stop();
    let text = seen();
    let topics: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(&format!(" {} ", bed.namespace)))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        // The probes are told in the namespace of who asked for them.
        .filter(|topic| *topic != "/namespaces/create")
        .collect();
    let wanted = [
        "/containers/create",
        "/tasks/create",
        "/tasks/start",
        "/tasks/exit",
        "/tasks/delete",
        "/containers/delete",
    ];
    assert_eq!(topics, wanted, "{text}");
    assert!(text.contains(r#""exit_status":5"#), "{text}");
}

#[test]
fn what_is_wrong_is_said() {
    let bed = Bed::new(Shims::Ours);
    let rootfs = bed.rootfs();
    let said = |arguments: &[&str], text: &str| {
        let ran = bed.ctr(arguments);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains(text), "{arguments:?}: {ran:?}");
    };
    let long = "x".repeat(77);
    said(
        &["c", "create", "--rootfs", &rootfs, &long, "/bin/sh"],
        "maximum length",
    );
    said(
        &["c", "create", "--rootfs", &rootfs, "a..b", "/bin/sh"],
        "invalid argument",
    );
    said(&["task", "kill", "nothing"], "not found");
    said(&["c", "ls", "labels.a=b"], "filter");
    let missing = [
        "run",
        "--rm",
        "--runtime",
        "io.containerd.nothing.v9",
        "--rootfs",
        &rootfs,
        "n1",
        "/bin/sh",
    ];
    said(&missing, "containerd-shim-nothing-v9");
    said(
        &["run", "--rm", "--rootfs", &rootfs, "n2", "/no/such/program"],
        "failed to create shim task: OCI runtime create failed",
    );
    said(
        &["run", "--rm", "--rootfs", &rootfs, "n2", "/no/such/program"],
        "no such file",
    );
    assert!(!bed.bundle("n1").exists() && !bed.bundle("n2").exists());

    let second = run(&mut bed.command());
    assert_ne!(second.code, Some(0));
    assert!(
        second.stderr.contains("in use by another daemon"),
        "{second:?}"
    );
    bed.ctr(&["version"]).ok();
}

#[test]
fn a_file_of_containerd_1_2_serves_with_warnings() {
    let mut bed = Bed::new(Shims::Ours);
    bed.kill();
    let old = include_str!("../src/config/testdata/1.2.4.toml");
    fs::write(bed.dir.path().join("config.toml"), old).unwrap();
    let check = run(bed.command().args(["config", "check"]));
    // Keys without effect are no reason not to start.
    assert_eq!(check.code, Some(0));
    assert!(
        check
            .stdout
            .contains("config.toml:38: plugins.cri.containerd.snapshotter"),
        "{check:?}"
    );
    bed.start();
    assert!(bed.log().contains("plugins.cri.sandbox_image"));
    let rootfs = bed.rootfs();
    let runtime = "io.containerd.runtime.v1.linux";
    let ran = bed.ctr(&[
        "run",
        "--rm",
        "--runtime",
        runtime,
        "--rootfs",
        &rootfs,
        "old",
        "/bin/sh",
        "-c",
        "echo old",
    ]);
    assert_eq!(ran.stdout, "old\n", "{ran:?}");
    bed.kill();

    fs::write(bed.dir.path().join("config.toml"), "[grpc\n").unwrap();
    let refused = run(&mut bed.command());
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("config.toml:1"), "{refused:?}");
    fs::write(bed.dir.path().join("config.toml"), "").unwrap();
}
