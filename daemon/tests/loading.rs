//! Shims of every generation and origin are loaded by their `runtime_type`, with unmodified `ctr`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test ends where something is not as it must be"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{Bed, Shims, eventually};

/// An OCI runtime under a name of its own: a link to runc, removed with the folder.
fn own_runtime(dir: &tempfile::TempDir) -> String {
    let link = dir.path().join("own-runtime");
    let runc = ["/usr/sbin/runc", "/usr/bin/runc"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    std::os::unix::fs::symlink(runc.expect("runc is installed"), &link).unwrap();
    link.to_str().unwrap().to_owned()
}

/// Runs a container of `runtime` in the foreground and in the background, to its end.
#[track_caller]
fn lives_its_life(bed: &Bed, runtime: &str, more: &[&str]) {
    let rootfs = bed.rootfs();
    let run = |flags: &[&str], id: &str, script: &str| {
        let all: Vec<&str> = ["run", "--runtime", runtime, "--rootfs"]
            .into_iter()
            .chain(flags.iter().copied())
            .chain(more.iter().copied())
            .chain([rootfs.as_str(), id, "/bin/sh", "-c", script])
            .collect();
        bed.ctr(&all)
    };
    let ran = run(&["--rm"], "fore", "echo out; echo err >&2; exit 3");
    assert_eq!(ran.code, Some(3), "{runtime}: {ran:?}\n{}", bed.log());
    let silent = more.contains(&"--null-io");
    assert!(!silent || ran.stdout.is_empty());
    let said = (ran.stdout.as_str(), ran.stderr.as_str());
    assert!(silent || said == ("out\n", "err\n"), "{runtime}: {said:?}");
    let script = "trap 'exit 9' TERM; while :; do /bin/busybox sleep 0.1; done";
    run(&["-d"], "back", script).ok();
    bed.wait_status("back", "RUNNING");
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "back"]).ok();
    bed.wait_status("back", "STOPPED");
    let ended = bed.ctr(&["task", "rm", "back"]).stderr;
    assert!(ended.contains("non-zero exit code 9"), "{runtime}: {ended}");
    bed.ctr(&["c", "rm", "back"]).ok();
    assert!(!bed.bundle("back").exists(), "{runtime}");
}

fn both_generations_are_loaded(shims: Shims) {
    let bed = Bed::new(shims);
    lives_its_life(&bed, "io.containerd.runc.v2", &[]);
    lives_its_life(&bed, "io.containerd.runc.v1", &[]);
}

#[test]
fn our_shims_are_loaded() {
    both_generations_are_loaded(Shims::Ours);
}

#[test]
fn go_shims_are_loaded() {
    both_generations_are_loaded(Shims::Go);
}

#[test]
fn a_shim_is_loaded_by_its_path() {
    let bed = Bed::new(Shims::Ours);
    lives_its_life(&bed, "/usr/bin/containerd-shim-runc-v2", &[]);
    lives_its_life(&bed, "/usr/bin/containerd-shim-runc-v1", &[]);
}

#[test]
fn the_legacy_runtime_runs_on_the_runc_shim() {
    let dir = tempfile::tempdir().unwrap();
    let own = own_runtime(&dir);
    let config =
        format!("version = 2\n[plugins.'io.containerd.runtime.v1.linux']\nruntime = '{own}'\n");
    for shims in [Shims::Ours, Shims::Go] {
        let bed = Bed::with_config(shims, &config);
        lives_its_life(&bed, "io.containerd.runtime.v1.linux", &[]);
        let rootfs = bed.rootfs();
        let runtime = "io.containerd.runtime.v1.linux";
        bed.ctr(&[
            "run",
            "-d",
            "--runtime",
            runtime,
            "--rootfs",
            &rootfs,
            "l",
            "/bin/sh",
            "-c",
            "exit 0",
        ])
        .ok();
        let named = fs::read_to_string(bed.bundle("l").join("runtime")).unwrap();
        assert_eq!(named, own, "{shims:?}");
        bed.wait_status("l", "STOPPED");
        bed.ctr(&["task", "rm", "l"]).ok();
        bed.ctr(&["c", "rm", "l"]).ok();
    }
}

#[test]
fn options_of_the_runtime_reach_the_shim() {
    for shims in [Shims::Ours, Shims::Go] {
        let bed = Bed::new(shims);
        let dir = tempfile::tempdir().unwrap();
        let own = own_runtime(&dir);
        lives_its_life(&bed, "io.containerd.runc.v2", &["--runc-binary", &own]);
        let root = bed.dir.path().join("runc-root");
        let rootfs = bed.rootfs();
        let root_flag = root.to_str().unwrap();
        let script = "while :; do /bin/busybox sleep 0.1; done";
        bed.ctr(&[
            "run",
            "-d",
            "--runc-root",
            root_flag,
            "--rootfs",
            &rootfs,
            "r",
            "/bin/sh",
            "-c",
            script,
        ])
        .ok();
        assert!(root.join(&bed.namespace).join("r").exists(), "{shims:?}");
        bed.ctr(&["task", "rm", "-f", "r"]).ok();
        bed.ctr(&["c", "rm", "r"]).ok();
    }
}

/// Where `make foreign-shim` puts a shim on the crate `containerd-shim`, which serves task v3 only.
fn foreign() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    target.join("tools/bin/containerd-shim-foreign-v1")
}

#[test]
fn a_foreign_shim_of_task_v3_is_loaded() {
    if !foreign().exists() {
        println!("skipped: make foreign-shim has not run");
        return;
    }
    let mut bed = Bed::new(Shims::Ours);
    lives_its_life(&bed, foreign().to_str().unwrap(), &["--null-io"]);
    // It is found again by a daemon that comes later.
    let rootfs = bed.rootfs();
    let runtime = foreign();
    let script = "while :; do /bin/busybox sleep 0.1; done";
    bed.ctr(&[
        "run",
        "-d",
        "--null-io",
        "--runtime",
        runtime.to_str().unwrap(),
        "--rootfs",
        &rootfs,
        "f",
        "/bin/sh",
        "-c",
        script,
    ])
    .ok();
    let task = bed.task("f");
    bed.kill();
    bed.start();
    assert_eq!(bed.task("f"), task);
    bed.ctr(&["task", "kill", "-s", "SIGKILL", "f"]).ok();
    bed.wait_status("f", "STOPPED");
    bed.ctr(&["task", "rm", "f"]);
    eventually("the bundle is gone", || !bed.bundle("f").exists());
    bed.ctr(&["c", "rm", "f"]).ok();
}

/// A shim that is a script around another: `before` decides whether it gets as far as that.
fn wrapped(bed: &Bed, name: &str, before: &str) -> String {
    let file = bed.dir.path().join(name);
    let real = bed.shim("containerd-shim-runc-v2");
    let script = format!("#!/bin/bash\n{before}\nexec {} \"$@\"\n", real.display());
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_shim_that_insists_on_parameters_gets_them() {
    let bed = Bed::new(Shims::Ours);
    // What is on stdin begins with the id of the container in parameters, and with a type in
    // options; without either there is nothing.
    let before = "if [[ ${!#} == start ]]; then\n\
        input=$(mktemp -p \"$(dirname \"$0\")\"); cat > \"$input\"\n\
        head -c 6 \"$input\" | grep -qa fore || \
        head -c 6 \"$input\" | grep -qa back || { echo 'bootstrap parameters wanted' >&2; exit 1; }\n\
        exec < \"$input\"\nfi";
    let shim = wrapped(&bed, "containerd-shim-new-v9", before);
    lives_its_life(&bed, &shim, &[]);
}

#[test]
fn what_cannot_be_loaded_is_told_and_leaves_nothing() {
    let bed = Bed::new(Shims::Ours);
    let fails = wrapped(
        &bed,
        "containerd-shim-fails-v1",
        "echo 'out of order' >&2; exit 1",
    );
    let silent = wrapped(&bed, "containerd-shim-silent-v1", "exit 0");
    let rubbish = wrapped(&bed, "containerd-shim-rubbish-v1", "echo '{]'; exit 0");
    let rootfs = bed.rootfs();
    for (runtime, told) in [
        ("io.containerd.nowhere.v1", "containerd-shim-nowhere-v1"),
        ("/nonexistent/shim", "/nonexistent/shim"),
        ("a/b.c", "a/b.c"),
        ("runc", "invalid runtime name"),
        (fails.as_str(), "out of order"),
        (silent.as_str(), "no address"),
        (rubbish.as_str(), "no address"),
    ] {
        let ran = bed.ctr(&[
            "run",
            "--rm",
            "--runtime",
            runtime,
            "--rootfs",
            &rootfs,
            "x",
            "/bin/sh",
        ]);
        assert_eq!(ran.code, Some(1), "{runtime}: {ran:?}");
        assert!(ran.stderr.contains(told), "{runtime}: {}", ran.stderr);
        assert!(!bed.bundle("x").exists(), "{runtime}");
    }
    assert_eq!(bed.ctr(&["task", "ls", "-q"]).ok(), "");
    assert_eq!(bed.ctr(&["c", "ls", "-q"]).ok(), "");
}
