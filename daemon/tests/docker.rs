//! Docker 20.10, unmodified, on the daemon: its engine talks to our socket as to containerd's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

mod common;
#[path = "common/docker.rs"]
mod docker;

use std::process::Command;

use common::{Bed, Shims, eventually, run};
use docker::Docker;

#[test]
fn docker_runs_on_it() {
    let mut bed = Bed::new(Shims::Ours);
    let docker = Docker::new(&bed);
    let ran = docker.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "bb:1",
        "sh",
        "-c",
        "echo hi; exit 4",
    ]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(4), "hi\n"),
        "{ran:?}"
    );

    let script = "while :; do busybox sleep 0.1; done";
    docker
        .run(&[
            "run",
            "-d",
            "--name",
            "d1",
            "--network",
            "none",
            "bb:1",
            "sh",
            "-c",
            script,
        ])
        .ok();
    assert_eq!(
        docker
            .run(&["exec", "d1", "sh", "-c", "echo in; exit 3"])
            .code,
        Some(3)
    );
    assert!(docker.run(&["top", "d1"]).ok().contains("busybox"));
    assert!(
        docker
            .run(&["stats", "--no-stream", "d1"])
            .ok()
            .contains("d1")
    );
    docker.run(&["pause", "d1"]).ok();
    docker.run(&["unpause", "d1"]).ok();
    docker.run(&["update", "--pids-limit", "77", "d1"]).ok();

    // The daemon dies under a running Docker and comes back.
    bed.kill();
    bed.start();
    eventually("exec works again", || {
        docker.run(&["exec", "d1", "sh", "-c", "echo back"]).stdout == "back\n"
    });
    docker.run(&["kill", "d1"]).ok();
    eventually("its exit is seen", || {
        docker
            .run(&["inspect", "-f", "{{.State.ExitCode}}", "d1"])
            .stdout
            == "137\n"
    });
    docker.run(&["rm", "d1"]).ok();
    assert_eq!(bed.ctr(&["task", "ls", "-q"]).ok(), "");
}

const LOOP: &str = "n=0; while :; do n=$((n+1)); echo line $n; busybox sleep 0.2; done";

#[test]
fn docker_keeps_its_promises_through_restarts_of_both() {
    let mut bed = Bed::new(Shims::Ours);
    let mut docker = Docker::new(&bed);

    // Restart policies: the engine restarts what has ended, for which it must see the end.
    docker.detached("often", &["--restart=on-failure:2"], "exit 3");
    eventually("it was restarted twice", || {
        docker.inspect("often", "{{.RestartCount}} {{.State.Status}}") == "2 exited"
    });
    docker.detached("always", &["--restart=always"], LOOP);
    let before = docker.inspect("always", "{{.State.Pid}}");
    run(Command::new("kill").args(["-9", &before])).ok();
    eventually("it runs again", || {
        let now = docker.inspect("always", "{{.State.Pid}} {{.State.Running}}");
        now.ends_with(" true") && !now.starts_with(&format!("{before} "))
    });

    docker.detached("logs", &["--memory=64m", "--pids-limit=50"], LOOP);
    eventually("its output is kept", || {
        docker.run(&["logs", "logs"]).stdout.contains("line 2\n")
    });
    let limits = docker.run(&["update", "--memory=96m", "--memory-swap=192m", "logs"]);
    limits.ok();
    let stats = [
        "stats",
        "--no-stream",
        "--format",
        "{{.MemUsage}} {{.PIDs}}",
        "logs",
    ];
    let stats = docker.run(&stats).ok();
    assert!(
        stats.contains("96MiB"),
        "the new limit is in force: {stats}"
    );
    docker.run(&["pause", "logs"]).ok();
    assert_eq!(docker.inspect("logs", "{{.State.Status}}"), "paused");
    docker.run(&["unpause", "logs"]).ok();

    // The engine dies and comes back: with --live-restore its containers live.
    let pid = docker.inspect("logs", "{{.State.Pid}}");
    docker.restart();
    assert_eq!(docker.inspect("logs", "{{.State.Pid}}"), pid);
    assert_eq!(docker.inspect("logs", "{{.State.Running}}"), "true");

    // So does the daemon below it; one container dies while it is away.
    docker.detached("dies", &[], LOOP);
    let dies = docker.inspect("dies", "{{.State.Pid}}");
    bed.kill();
    run(Command::new("kill").args(["-9", &dies])).ok();
    bed.start();
    eventually("the end of what died meanwhile is seen", || {
        docker.inspect("dies", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"
    });
    assert_eq!(docker.inspect("logs", "{{.State.Pid}}"), pid);
    eventually("exec works again", || {
        docker
            .run(&["exec", "logs", "sh", "-c", "echo back"])
            .stdout
            == "back\n"
    });
    let seen = docker.run(&["logs", "logs"]).stdout.lines().count();
    eventually("its output goes on", || {
        docker.run(&["logs", "logs"]).stdout.lines().count() > seen
    });

    // A polite stop of the daemon is no different.
    bed.signal("TERM");
    assert_eq!(bed.ended(), Some(0));
    bed.start();
    eventually("exec works again", || {
        docker
            .run(&["exec", "logs", "sh", "-c", "echo back"])
            .stdout
            == "back\n"
    });
    docker.run(&["stop", "-t", "1", "logs"]).ok();
    assert_eq!(docker.inspect("logs", "{{.State.ExitCode}}"), "137");
    docker.run(&["start", "logs"]).ok();
    docker.run(&["kill", "--signal", "KILL", "logs"]).ok();
    docker.run(&["wait", "logs"]).ok();
    docker
        .run(&["rm", "-f", "always", "often", "dies", "logs"])
        .ok();
    assert_eq!(bed.ctr(&["task", "ls", "-q"]).ok(), "");
}
