//! The daemon dies and comes back: nothing of its containers is lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

mod common;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Bed, Shims, eventually, run};

fn kill_process(pid: i32) {
    run(Command::new("kill").args(["-9", &pid.to_string()])).ok();
}

/// The shim of a container: the parent of its first process.
fn shim_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("PPid:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

fn containers_outlive_the_daemon(shims: Shims) {
    let mut bed = Bed::new(shims);
    bed.run_detached("alive");
    bed.run_detached("ends");
    let alive = bed.task("alive").unwrap();
    let ends = bed.task("ends").unwrap();
    bed.kill();
    kill_process(ends.0);
    eventually("it is dead", || is_gone(ends.0));
    bed.start();

    assert_eq!(bed.task("alive"), Some(alive));
    bed.wait_status("ends", "STOPPED");
    let exec = bed.ctr(&[
        "task",
        "exec",
        "--exec-id",
        "e",
        "alive",
        "/bin/sh",
        "-c",
        "echo back",
    ]);
    assert_eq!(exec.stdout, "back\n", "{exec:?}");
    let ended = bed.ctr(&["task", "rm", "ends"]).stderr;
    assert!(ended.contains("non-zero exit code 137"), "{ended}");
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "alive"]).ok();
    bed.wait_status("alive", "STOPPED");
    let ended = bed.ctr(&["task", "rm", "alive"]).stderr;
    assert!(ended.contains("non-zero exit code 9"), "{ended}");
}

#[test]
fn containers_outlive_a_killed_daemon() {
    containers_outlive_the_daemon(Shims::Ours);
}

#[test]
fn containers_outlive_a_killed_daemon_with_the_go_shim() {
    containers_outlive_the_daemon(Shims::Go);
}

#[test]
fn a_shim_that_died_meanwhile_is_cleaned_up() {
    let mut bed = Bed::new(Shims::Ours);
    bed.run_detached("lost");
    let (pid, _) = bed.task("lost").unwrap();
    let shim = shim_of(pid);
    bed.kill();
    kill_process(shim);
    eventually("the shim is dead", || is_gone(shim));
    bed.start();
    eventually("the task is gone", || bed.task("lost").is_none());
    eventually("and its process", || is_gone(pid));
    assert!(!bed.bundle("lost").exists());
    bed.ctr(&["c", "rm", "lost"]).ok();
}

#[test]
fn a_shim_that_dies_ends_its_task_with_events_and_waiters_told() {
    let bed = Bed::new(Shims::Ours);
    let out = bed.dir.path().join("events");
    let _watcher = common::background(bed.ctr_command().arg("events"), &out);
    let seen = || fs::read_to_string(&out).unwrap_or_default();
    let rootfs = bed.rootfs();
    let script = "while :; do /bin/busybox sleep 0.1; done";
    let waited = bed.dir.path().join("waited");
    let mut waiter = common::background(
        bed.ctr_command().args([
            "run",
            "--null-io",
            "--rootfs",
            &rootfs,
            "w",
            "/bin/sh",
            "-c",
            script,
        ]),
        &waited,
    );
    bed.wait_status("w", "RUNNING");
    eventually("its start is seen", || {
        // The watcher may have come late; then a second event shows that it is there.
        bed.ctr(&["ns", "label", &bed.namespace, "seen=1"]).ok();
        seen().contains("/namespaces/update")
    });
    let (pid, _) = bed.task("w").unwrap();
    kill_process(shim_of(pid));
    eventually("exit and delete", || {
        seen().contains("/tasks/exit") && seen().contains("/tasks/delete")
    });
    assert!(seen().contains(r#""exit_status":137"#), "{}", seen());
    // It says so with an error, because it finds no task to delete any more.
    assert_eq!(waiter.wait(), Some(1));
    eventually("the task is gone", || {
        bed.task("w").is_none() && is_gone(pid)
    });
}

#[test]
fn a_shim_that_hangs_delays_nobody() {
    let mut bed = Bed::new(Shims::Ours);
    bed.run_detached("hangs");
    bed.run_detached("fine");
    let shim = shim_of(bed.task("hangs").unwrap().0).to_string();
    bed.kill();
    run(Command::new("kill").args(["-STOP", &shim])).ok();
    bed.start();
    let exec = bed.ctr(&[
        "task",
        "exec",
        "--exec-id",
        "e",
        "fine",
        "/bin/sh",
        "-c",
        "echo ok",
    ]);
    assert_eq!(exec.stdout, "ok\n", "{exec:?}");
    bed.wait_status("fine", "RUNNING");
    assert_eq!(bed.task("hangs"), None, "it cannot be said how it is");
    run(Command::new("kill").args(["-CONT", &shim])).ok();
    bed.wait_status("hangs", "RUNNING");
}

/// A container of each fate, several times over; the daemon is away meanwhile.
#[test]
fn many_shims_in_trouble_delay_nobody() {
    let mut bed = Bed::new(Shims::Ours);
    let of = |kind: &str| (0..4).map(|n| format!("{kind}{n}")).collect::<Vec<_>>();
    let [fine, hangs, dead, lost] = ["fine", "hangs", "dead", "lost"].map(of);
    for id in fine.iter().chain(&hangs).chain(&dead).chain(&lost) {
        bed.run_detached(id);
    }
    let pids = |ids: &[String]| -> Vec<i32> {
        let pid = |id: &String| bed.task(id).unwrap().0;
        ids.iter().map(pid).collect()
    };
    let (of_dead, of_lost) = (pids(&dead), pids(&lost));
    let shims_of_lost: Vec<i32> = of_lost.iter().map(|pid| shim_of(*pid)).collect();
    let stopped: Vec<String> = pids(&hangs)
        .into_iter()
        .map(|pid| shim_of(pid).to_string())
        .collect();
    bed.kill();
    for shim in &stopped {
        run(Command::new("kill").args(["-STOP", shim])).ok();
    }
    for pid in &of_dead {
        kill_process(shim_of(*pid));
    }
    for id in &lost {
        for name in ["bootstrap.json", "address"] {
            fs::write(bed.bundle(id).join(name), "\x7fELF rubbish\n").unwrap();
        }
    }
    let started = Instant::now();
    bed.start();
    let served = started.elapsed();
    for id in &fine {
        bed.ctr(&["task", "metrics", id]).ok();
    }
    let asked = started.elapsed();
    let listed = bed.ctr(&["task", "ls", "-q"]).ok();
    let took = started.elapsed() - asked;
    for id in &fine {
        assert!(listed.lines().any(|line| line == id), "{id}: {listed}");
    }
    // Far from the 2 s that each shim in trouble is given, one after the other.
    let limit = Duration::from_secs(1);
    assert!(served < limit && asked < 3 * limit, "{served:?} {asked:?}");
    assert!(took < 3 * limit, "{took:?}");
    eventually("the dead and the lost are cleaned up", || {
        let gone = |id: &String| !bed.bundle(id).exists();
        dead.iter().chain(&lost).all(gone)
            && of_dead.iter().chain(&of_lost).all(|pid| is_gone(*pid))
    });
    for shim in &stopped {
        run(Command::new("kill").args(["-CONT", shim])).ok();
    }
    for id in fine.iter().chain(&hangs) {
        bed.wait_status(id, "RUNNING");
    }
    for id in &dead {
        let told = format!("the exit of {id} is told");
        assert_eq!(bed.log().matches(&told).count(), 1, "{id}");
    }
    // Those nobody can reach any more have told it themselves.
    for shim in shims_of_lost {
        kill_process(shim);
    }
}

#[test]
fn tasks_go_from_containerd_to_the_daemon_and_back() {
    let mut bed = Bed::new(Shims::Go);
    bed.kill();
    let mut containerd = bed.containerd();
    bed.run_detached("moves");
    let task = bed.task("moves");
    assert_eq!(task.as_ref().unwrap().1, "RUNNING");
    containerd.stop();

    bed.start();
    assert_eq!(bed.task("moves"), task);
    // The container's record stayed with containerd; the task itself is all here.
    bed.run_detached("new");
    bed.kill();

    let mut containerd = bed.containerd();
    assert_eq!(bed.task("moves"), task);
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "moves"]).ok();
    bed.wait_status("moves", "STOPPED");
    let ended = bed.ctr(&["task", "rm", "moves"]).stderr;
    assert!(ended.contains("non-zero exit code 9"), "{ended}");
    containerd.stop();
    bed.start();
    bed.wait_status("new", "RUNNING");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_daemon_is_killed_again_and_again() {
    const LAST: u64 = 7;
    let mut bed = Bed::new(Shims::Ours);
    let rootfs = bed.rootfs();
    let script = "while :; do /bin/busybox sleep 0.1; done";
    let mut tasks = Vec::new();
    let mut records = Vec::new();
    for round in 0..=LAST {
        // Clients that are cut off at another moment in each round.
        let mut clients: Vec<(String, std::process::Child)> = Vec::new();
        for kind in ["t", "c"] {
            let id = format!("{kind}{round}");
            let mut client = bed.ctr_command();
            match kind {
                "t" => client.args([
                    "run", "-d", "--rootfs", &rootfs, &id, "/bin/sh", "-c", script,
                ]),
                _ => client.args(["c", "create", "--rootfs", &rootfs, &id, "/bin/sh"]),
            };
            clients.push((id, common::quietly(&mut client)));
        }
        // The last round's are let through, so that something is acknowledged at any speed.
        let mut acknowledged = Vec::new();
        if round == LAST {
            acknowledged = common::those_that_end_well(std::mem::take(&mut clients));
        }
        std::thread::park_timeout(Duration::from_millis(20 * round));
        bed.kill();
        acknowledged.extend(common::those_that_end_well(clients));
        for id in acknowledged {
            if id.starts_with('t') {
                tasks.push(id.clone());
            }
            records.push(id);
        }
        bed.start();
    }
    let kept = bed.ctr(&["c", "ls", "-q"]).ok();
    for id in &records {
        assert!(kept.lines().any(|line| line == id), "{id} of {kept}");
    }
    for id in &tasks {
        bed.wait_status(id, "RUNNING");
    }
    assert!(!tasks.is_empty() && records.len() > tasks.len());
    // What was cut off half way is gone or can be removed like anything else.
    for id in bed.ctr(&["task", "ls", "-q"]).ok().lines() {
        bed.ctr(&["task", "rm", "-f", id]).ok();
    }
    for id in kept.lines() {
        bed.ctr(&["c", "rm", id]).ok();
    }
    let bundles = bed.bundle("x");
    let left = fs::read_dir(bundles.parent().unwrap()).unwrap().count();
    assert_eq!(left, 0);
}
