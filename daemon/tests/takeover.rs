//! The daemon takes the place of a containerd on the same folders and address, with everything
//! that runs there, and gives it back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

mod common;

use std::fs;
use std::path::Path;

use core_api::tasks::tasks_client::TasksClient;
use core_api::tasks::{DeleteTaskRequest, KillRequest};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use common::{Bed, Shims, background, eventually};

const LOOP: &str = "trap 'exit 9' TERM; while :; do /bin/busybox sleep 0.1; done";

#[track_caller]
fn run_detached(bed: &Bed, runtime: &str, id: &str) {
    let rootfs = bed.rootfs();
    let run = [
        "run",
        "-d",
        "--runtime",
        runtime,
        "--rootfs",
        &rootfs,
        id,
        "/bin/sh",
        "-c",
        LOOP,
    ];
    bed.ctr(&run).ok();
    bed.wait_status(id, "RUNNING");
}

/// Ends a container whose record the daemon has, and sees its code.
#[track_caller]
fn end(bed: &Bed, id: &str) {
    bed.ctr(&["task", "kill", "-s", "SIGTERM", id]).ok();
    bed.wait_status(id, "STOPPED");
    let ended = bed.ctr(&["task", "rm", id]).stderr;
    assert!(ended.contains("non-zero exit code 9"), "{ended}");
    bed.ctr(&["c", "rm", id]).ok();
}

fn request<M>(bed: &Bed, message: M) -> Request<M> {
    let mut request = Request::new(message);
    let namespace = bed.namespace.parse().unwrap();
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    request
}

async fn tasks(address: &Path) -> TasksClient<Channel> {
    let endpoint = Endpoint::try_from(format!("unix://{}", address.display())).unwrap();
    TasksClient::new(endpoint.connect().await.unwrap())
}

/// Kills and deletes a task without a record, which `ctr` cannot: it asks for the record first.
fn end_without_record(bed: &Bed, id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut tasks = tasks(&bed.address()).await;
        let kill = KillRequest {
            container_id: id.to_owned(),
            signal: 15,
            ..KillRequest::default()
        };
        tasks.kill(request(bed, kill)).await.unwrap();
    });
    bed.wait_status(id, "STOPPED");
    runtime.block_on(async {
        let mut tasks = tasks(&bed.address()).await;
        let delete = DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        let ended = tasks.delete(request(bed, delete)).await.unwrap();
        assert_eq!(ended.into_inner().exit_status, 9);
    });
    eventually("the bundle is gone", || !bed.bundle(id).exists());
}

/// containerd, then the daemon, then containerd again.
fn containerds_tasks_are_taken_over(shims: Shims, runtime: &str) {
    let mut bed = Bed::new(shims);
    bed.stop();
    let mut containerd = bed.containerd();
    for id in ["stays", "ends-here", "ends-between"] {
        run_detached(&bed, runtime, id);
    }
    let before: Vec<_> = ["stays", "ends-here"]
        .map(|id| bed.task(id).unwrap())
        .into();
    let shim = fs::read_to_string(bed.bundle("stays").join("shim-binary-path")).unwrap();
    let name = runtime
        .trim_start_matches("io.containerd.")
        .replace('.', "-");
    let expected = bed.shim(&format!("containerd-shim-{name}"));
    assert_eq!(Path::new(&shim), expected.canonicalize().unwrap());
    let between = bed.task("ends-between").unwrap().0;
    containerd.stop();
    common::run(std::process::Command::new("kill").args(["-TERM", &between.to_string()])).ok();

    bed.start();
    let after: Vec<_> = ["stays", "ends-here"]
        .map(|id| bed.task(id).unwrap())
        .into();
    assert_eq!(after, before);
    bed.wait_status("ends-between", "STOPPED");
    // Its events come here now.
    let out = bed.dir.path().join("events");
    let mut watcher = background(bed.ctr_command().arg("events"), &out);
    let seen = || fs::read_to_string(&out).unwrap_or_default();
    eventually("the watcher is there", || {
        bed.ctr(&["ns", "create", "seen"]);
        bed.ctr(&["ns", "rm", "seen"]);
        seen().contains("/namespaces/")
    });
    end_without_record(&bed, "ends-here");
    eventually("its exit is seen", || {
        seen().lines().any(|line| {
            line.contains("/tasks/exit")
                && line.contains("ends-here")
                && line.contains(r#""exit_status":9"#)
        })
    });
    watcher.stop();
    run_detached(&bed, runtime, "new");
    let new = bed.task("new");
    bed.stop();

    let mut containerd = bed.containerd();
    assert_eq!(bed.task("stays").unwrap(), before[0]);
    assert_eq!(bed.task("new"), new);
    assert_eq!(bed.task("ends-here"), None);
    // A record can be made for a task that has none.
    let rootfs = bed.rootfs();
    let create = [
        "c",
        "create",
        "--runtime",
        runtime,
        "--rootfs",
        &rootfs,
        "new",
        "/bin/sh",
    ];
    bed.ctr(&create).ok();
    let exec = [
        "task",
        "exec",
        "--exec-id",
        "e",
        "new",
        "/bin/sh",
        "-c",
        "echo here",
    ];
    assert_eq!(bed.ctr(&exec).ok(), "here\n");
    end(&bed, "stays");
    // It ended while there was neither; this containerd keeps it, and knows its code.
    bed.wait_status("ends-between", "STOPPED");
    let ended = bed.ctr(&["task", "rm", "ends-between"]).stderr;
    assert!(ended.contains("non-zero exit code 9"), "{ended}");
    containerd.stop();

    bed.start();
    assert_eq!(bed.task("new"), new);
    end(&bed, "new");
}

#[test]
fn tasks_of_our_shim_are_taken_over() {
    containerds_tasks_are_taken_over(Shims::Ours, "io.containerd.runc.v2");
}

#[test]
fn tasks_of_our_first_generation_shim_are_taken_over() {
    containerds_tasks_are_taken_over(Shims::Ours, "io.containerd.runc.v1");
}

#[test]
fn tasks_of_the_go_shim_are_taken_over() {
    containerds_tasks_are_taken_over(Shims::Go, "io.containerd.runc.v2");
}

#[test]
fn tasks_of_the_first_generation_go_shim_are_taken_over() {
    containerds_tasks_are_taken_over(Shims::Go, "io.containerd.runc.v1");
}

#[test]
fn records_of_containerd_are_taken_over_by_import() {
    let mut bed = Bed::new(Shims::Ours);
    bed.stop();
    let mut containerd = bed.containerd();
    run_detached(&bed, "io.containerd.runc.v2", "moves");
    // Enough records for a tree of more than one page.
    let rootfs = bed.rootfs();
    for number in 0..30 {
        let id = format!("c{number}");
        bed.ctr(&[
            "c", "create", "--label", "n=1", "--rootfs", &rootfs, &id, "/bin/sh",
        ])
        .ok();
    }
    bed.ctr(&["c", "label", "moves", "some=label", "other=one"])
        .ok();
    bed.ctr(&["ns", "label", &bed.namespace, "of=ns"]).ok();
    let facts = |bed: &Bed, id: &str| {
        let info = bed.ctr(&["c", "info", id]).ok();
        let mut info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let fields = info.as_object_mut().unwrap();
        // When a record was made is not taken over.
        fields.retain(|key, _| !["CreatedAt", "UpdatedAt"].contains(&key.as_str()));
        info
    };
    let (before, created) = (facts(&bed, "moves"), facts(&bed, "c17"));
    containerd.stop();

    let check = common::run(bed.command().args(["config", "check"]));
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("meta.db:1: ") && check.stdout.contains("wherryd import"));
    let said = common::run(bed.command().arg("import")).ok();
    assert!(
        said.contains(&format!("taken over: {}/moves\n", bed.namespace)),
        "{said}"
    );
    assert_eq!(said.lines().count(), 31, "{said}");
    let again = common::run(bed.command().arg("import")).ok();
    assert!(
        !again.contains("taken over") && again.lines().count() == 31,
        "{again}"
    );
    assert_eq!(
        common::run(bed.command().args(["config", "check"])).ok(),
        ""
    );

    bed.start();
    assert_eq!(
        (facts(&bed, "moves"), facts(&bed, "c17")),
        (before, created)
    );
    assert!(bed.ctr(&["ns", "ls"]).ok().contains("of=ns"));
    let exec = [
        "task",
        "exec",
        "--exec-id",
        "e",
        "moves",
        "/bin/sh",
        "-c",
        "echo here",
    ];
    assert_eq!(bed.ctr(&exec).ok(), "here\n");
    end(&bed, "moves");
    for id in bed.ctr(&["c", "ls", "-q"]).ok().lines() {
        bed.ctr(&["c", "rm", id]).ok();
    }
}
