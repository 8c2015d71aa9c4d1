//! An upgrade on a live node: the files of the shims are replaced while their containers run,
//! and bundles made by one are read by the other. Both ways.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_integration::e2e::{Containerd, IMAGE, LONG, SwapDir, other_dir, shim_dir, until};

/// A node whose shims come from `before`, with three containers; then those of `after` are put
/// in their place, and everything must go on.
fn swap(before: &Path, after: &Path, runtime: &str) {
    let shims = SwapDir::new(before);
    let mut node = Containerd::start(shims.path());
    let script = "trap 'exit 42' TERM; while :; do sleep 1000 & wait $!; done";
    let run = |node: &Containerd, name: &str| {
        let id = node.id(name);
        let args = [
            "run",
            "-d",
            "--null-io",
            "--runtime",
            runtime,
            IMAGE,
            &id,
            "sh",
            "-c",
            script,
        ];
        let _ = node.ctr(args).ok();
        node.await_status(&id, "RUNNING");
        id
    };
    let (kept, restarted, orphaned) = (
        run(&node, "kept"),
        run(&node, "restarted"),
        run(&node, "orphaned"),
    );

    shims.replace_with(after);
    // Used and removed under the daemon that started it: its old shim runs, the new `delete`.
    use_and_remove(&node, &kept);

    // A new container beside the old ones, by the new binary.
    let new = run(&node, "new");
    let binary = format!("containerd-shim-runc-{}", flavour(runtime));
    let started = format!("/proc/{}/exe", node.shim_of(&new).pid);
    let same = bytes(started.as_ref()) == bytes(&after.join(binary));
    assert!(same, "the new binary serves new containers");
    use_and_remove(&node, &new);

    // As a package upgrade that restarts the daemon too: it reads the bundles of the old shim.
    node.restart_daemon();
    use_and_remove(&node, &restarted);

    // A shim of before dies by accident: the new binary cleans its bundle up.
    let shim = node.shim_of(&orphaned).pid;
    assert_eq!(kill(Pid::from_raw(shim), Signal::SIGKILL), Ok(()));
    until("the orphan to be gone", LONG, || {
        node.status(&orphaned).is_none().then_some(())
    });
    let _ = node.ctr(["container", "delete", &orphaned]).ok();
    node.footprint().assert_clean_after_a_crash(after);
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn flavour(runtime: &str) -> &str {
    runtime.rsplit('.').next().unwrap_or("v2")
}

/// Lists, executes into, pauses, stops and deletes a container.
fn use_and_remove(node: &Containerd, id: &str) {
    assert_eq!(node.status(id).as_deref(), Some("RUNNING"));
    let exec = node.ctr([
        "task",
        "exec",
        "--exec-id",
        "e",
        id,
        "sh",
        "-c",
        "echo in; exit 3",
    ]);
    assert_eq!(exec.code_is(3).stdout, "in\n");
    let _ = node.ctr(["task", "metrics", id]).ok();
    let _ = node.ctr(["task", "pause", id]).ok();
    let _ = node.ctr(["task", "resume", id]).ok();
    let _ = node.ctr(["task", "kill", "--signal", "SIGTERM", id]).ok();
    node.await_status(id, "STOPPED");
    let deleted = node.ctr(["task", "delete", id]).ok();
    assert!(deleted.stderr.contains("exit code 42"), "{deleted}");
    let _ = node.ctr(["container", "delete", id]).ok();
}

#[test]
fn v2_from_the_go_shim_to_ours() {
    swap(&other_dir(), &shim_dir(), "io.containerd.runc.v2");
}

#[test]
fn v2_from_ours_back_to_the_go_shim() {
    swap(&shim_dir(), &other_dir(), "io.containerd.runc.v2");
}

#[test]
fn v1_from_the_go_shim_to_ours() {
    swap(&other_dir(), &shim_dir(), "io.containerd.runc.v1");
}

#[test]
fn v1_from_ours_back_to_the_go_shim() {
    swap(&shim_dir(), &other_dir(), "io.containerd.runc.v1");
}

#[test]
fn a_group_started_under_the_go_shim_takes_a_member_after_the_swap() {
    joins_a_group_of(&other_dir(), &shim_dir());
}

#[test]
fn a_group_started_under_ours_takes_a_member_after_the_way_back() {
    joins_a_group_of(&shim_dir(), &other_dir());
}

/// `start` of the one binary finds the living group socket of the other and hands it out.
fn joins_a_group_of(before: &Path, after: &Path) {
    let shims = SwapDir::new(before);
    let node = Containerd::start(shims.path());
    let group = node.id("pod");
    let annotation = format!("io.containerd.runc.v2.group={group}");
    let ids = [group.clone(), node.id("member")];
    for id in &ids {
        let args = [
            "run",
            "-d",
            "--null-io",
            "--annotation",
            &annotation,
            IMAGE,
            id,
        ];
        let _ = node.ctr(args.iter().chain(&["sleep", "1000"])).ok();
        shims.replace_with(after);
    }
    assert_eq!(node.footprint().shims().len(), 1, "one shim serves both");
    for id in ids.iter().rev() {
        let exec = node
            .ctr(["task", "exec", "--exec-id", "e", id, "echo", "here"])
            .ok();
        assert_eq!(exec.stdout, "here\n");
        let _ = node.ctr(["task", "kill", "--signal", "SIGKILL", id]).ok();
        node.await_status(id, "STOPPED");
        let _ = node.ctr(["task", "delete", id]).ok();
        let _ = node.ctr(["container", "delete", id]).ok();
    }
    node.footprint().assert_clean();
}
