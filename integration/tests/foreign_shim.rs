//! The shim of `foreign-shim/`, by itself: engines are tested with it, so it must be a real one.
//!
//! It speaks task v3 alone, through code that is not ours on both sides of the socket.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use wherry_integration::client::{TASK_V2, TASK_V3};
use wherry_integration::prelude::*;

/// Where `make foreign-shim` puts it.
fn program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    target.join("tools/bin/containerd-shim-foreign-v1")
}

/// A bundle and the foreign shim for it.
fn shim(bed: &Bed, id: &str, spec: &Spec) -> (Bundle, Shim) {
    let bundle = bed.bundle(id, spec);
    let mut request = bed.start_request(&bundle);
    request.binary = program();
    let shim = bed.start_with(&request);
    (bundle, shim)
}

/// The `delete` action and the end of the bundle.
fn remove(bed: &Bed, bundle: &Bundle) -> u32 {
    let mut request = bed.start_request(bundle);
    request.binary = program();
    let response = wherry_integration::delete::run(&request).response();
    bed.discard(bundle);
    response.exit_status
}

#[test]
fn a_container_lives_under_it_and_leaves_nothing() {
    skip_unless!(program().exists(), "make foreign-shim has not run");
    let bed = Bed::new();
    let (bundle, shim) = shim(&bed, "c1", &Spec::sh("echo ahoy; exec sleep 1000"));
    assert_eq!(shim.reply.task_service(), TASK_V3);
    let older = shim.task.service(TASK_V2).connect_task("c1");
    assert!(older.is_err(), "it does not serve task v2");

    let out = OutputFifo::read(&bed.fifo("out"));
    let request = bundle.create_with("", &out.path(), "");
    let pid = shim.task.create(&request).unwrap().pid;
    let state = |expected: Status| {
        let state = shim.task.state("c1", "").unwrap();
        assert_eq!(state.status.unwrap(), expected);
        assert_eq!(state.pid, pid);
    };
    state(Status::CREATED);
    assert_eq!(shim.task.start("c1", "").unwrap().pid, pid);
    state(Status::RUNNING);
    eventually(SHORT, "the output comes", || out.text() == "ahoy\n");
    let refused = shim.task.delete("c1", "").unwrap_err();
    assert_eq!(refused.code(), Some(Code::FAILED_PRECONDITION));

    let waiter = shim.task.spawn(|task| task.wait("c1", ""));
    shim.task.kill("c1", "", 9, false).unwrap();
    let exit = waiter.join().unwrap().unwrap();
    assert_eq!(exit.exit_status, 137);
    state(Status::STOPPED);
    let late = shim.task.kill("c1", "", 9, false).unwrap_err();
    assert_eq!(late.code(), Some(Code::NOT_FOUND), "{late}");
    let deleted = shim.task.delete("c1", "").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert_eq!(deleted.exited_at, exit.exited_at);
    bed.shut(&bundle, &shim);
    assert_eq!(
        bed.sink().briefs(),
        ["create c1", "start c1", "exit c1 137", "delete c1 137"]
    );
    remove(&bed, &bundle);
    bed.assert_clean();
}

#[test]
fn a_container_whose_shim_was_killed_is_removed_by_the_delete_action() {
    skip_unless!(program().exists(), "make foreign-shim has not run");
    let bed = Bed::new();
    let (bundle, shim) = shim(&bed, "c1", &Spec::sleeper());
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    shim.kill();
    assert_eq!(remove(&bed, &bundle), 137);
    // The crate leaves the socket of a shim that was killed, as Go does.
    let _ = std::fs::remove_file(&shim.socket);
    bed.assert_clean();
}

#[test]
fn what_it_does_not_know_it_refuses_and_lives_on() {
    skip_unless!(program().exists(), "make foreign-shim has not run");
    let bed = Bed::new();
    let (bundle, shim) = shim(&bed, "c1", &Spec::sleeper());
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    assert!(shim.task.exec(&bundle.exec("e1", &["true"])).is_err());
    assert!(shim.task.pause("c1").is_err());
    assert!(shim.task.stats("c1").is_err());
    let unknown = shim.task.state("c2", "").unwrap_err();
    assert_eq!(unknown.code(), Some(Code::NOT_FOUND));
    assert_eq!(shim.task.pids("c1").unwrap().processes.len(), 1);
    bed.end(&bundle, &shim);
    remove(&bed, &bundle);
    bed.assert_clean();
}
