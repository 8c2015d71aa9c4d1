//! Checkpoint and restore through a real criu, where one works on this kernel.

use std::path::Path;

use wherry_integration::e2e::{Containerd, Criu, IMAGE, LONG, shim_dir, until};

#[test]
fn checkpoint_and_restore() {
    let criu = match Criu::find() {
        Ok(criu) => criu,
        Err(reason) => {
            eprintln!("skipped: checkpoint_and_restore: {reason}");
            return;
        }
    };
    let node = Containerd::start(&shim_dir());
    criu.offer_to(&node);
    let id = node.id("frozen");
    let script = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.1; done";
    let _ = node
        .ctr(["run", "-d", "--null-io", IMAGE, &id, "sh", "-c", script])
        .ok();
    node.await_status(&id, "RUNNING");
    let count = |exec: &str| -> u64 {
        let output = node.ctr(["task", "exec", "--exec-id", exec, &id, "cat", "/count"]);
        output.line().parse().unwrap_or(0)
    };
    let mut look = 0;
    let before = until("the counter to run", LONG, || {
        look += 1;
        Some(count(&format!("b{look}"))).filter(|count| *count >= 3)
    });
    let reference = "wherry.test/checkpoint:1";
    let args = [
        "container",
        "checkpoint",
        "--rw",
        "--task",
        "--image",
        &id,
        reference,
    ];
    let _ = node.ctr(args).ok();
    node.remove(&id);
    node.footprint().assert_clean();

    let _ = node
        .ctr(["container", "restore", "--rw", "--live", &id, reference])
        .ok();
    node.await_status(&id, "RUNNING");
    let after = until("the restored counter to be read", LONG, || {
        look += 1;
        Some(count(&format!("a{look}"))).filter(|count| *count > 0)
    });
    assert!(
        after >= before,
        "the counter goes on from {before}: {after}"
    );
    let metrics = node.ctr(["task", "metrics", &id]).ok();
    assert!(
        metrics.stdout.contains("memory"),
        "a restored container has metrics: {metrics}"
    );
    node.remove(&id);
    node.footprint().assert_clean();
}

#[test]
fn checkpoint_by_path_leaves_the_task_running_or_ends_it() {
    let criu = match Criu::find() {
        Ok(criu) => criu,
        Err(reason) => {
            eprintln!("skipped: checkpoint_by_path: {reason}");
            return;
        }
    };
    let node = Containerd::start(&shim_dir());
    criu.offer_to(&node);
    let id = node.id("by-path");
    let _ = node
        .ctr(["run", "-d", "--null-io", IMAGE, &id, "sleep", "1000"])
        .ok();
    node.await_status(&id, "RUNNING");
    let images = node.path("images").to_string_lossy().into_owned();
    let _ = node
        .ctr(["task", "checkpoint", "--image-path", &images, &id])
        .ok();
    assert!(
        Path::new(&images).join("inventory.img").is_file(),
        "criu's images are at the path"
    );
    assert_eq!(node.status(&id).as_deref(), Some("RUNNING"));
    let _ = node
        .ctr(["task", "checkpoint", "--exit", "--image-path", &images, &id])
        .ok();
    node.await_status(&id, "STOPPED");
    node.delete(&id, 137);
    node.footprint().assert_clean();
}
