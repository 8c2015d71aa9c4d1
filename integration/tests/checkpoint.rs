//! Checkpoint and restore through criu; skipped, and said so, where criu does not work.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use containerd_shim_protos::api::CheckpointTaskRequest;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use protobuf::{Message as _, MessageField};
use wherry_integration::prelude::*;

/// Counts in a file, so that a restored container can be told from a fresh one.
const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo $n > /tmp/count; usleep 20000; done";

fn count(bundle: &Bundle) -> u64 {
    let text = std::fs::read_to_string(bundle.rootfs().join("tmp/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn checkpoint(bed: &Bed, shim: &Shim, exit: bool) -> Result<(), CallError> {
    let mut options = CheckpointOptions::new();
    options.exit = exit;
    let mut any = protobuf::well_known_types::any::Any::new();
    any.type_url = "containerd.runc.v1.CheckpointOptions".to_owned();
    any.value = options.write_to_bytes().unwrap();
    let mut request = CheckpointTaskRequest::new();
    request.id = "c1".to_owned();
    request.path = bed.path("image").display().to_string();
    request.options = MessageField::some(any);
    std::fs::create_dir_all(&request.path).unwrap();
    shim.task
        .call("Checkpoint", &request)
        .map(|_: api::Empty| ())
}

#[test]
fn a_checkpoint_leaves_the_container_running_unless_told_to_exit() {
    let criu = target::criu();
    skip_unless!(criu.is_ok(), criu.unwrap_err());
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sh(COUNTER));
    checkpoint(&bed, &shim, false).unwrap();
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    assert!(std::fs::read_dir(bed.path("image")).unwrap().count() > 5);
    checkpoint(&bed, &shim, true).unwrap();
    shim.task.wait("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn a_restored_container_goes_on_where_it_stopped() {
    let criu = target::criu();
    skip_unless!(criu.is_ok(), criu.unwrap_err());
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sh(COUNTER));
    eventually(SHORT, "it counts", || count(&bundle) > 20);
    checkpoint(&bed, &shim, true).unwrap();
    shim.task.wait("c1", "").unwrap();
    shim.task.delete("c1", "").unwrap();
    let before = count(&bundle);
    let mut request = bundle.create();
    request.checkpoint = bed.path("image").display().to_string();
    let created = shim.task.create(&request).unwrap();
    assert_eq!(created.pid, 0, "the process comes with Start");
    let refused = shim.task.exec(&bundle.exec("e1", &["true"])).unwrap_err();
    assert_eq!(refused.code(), Some(Code::UNKNOWN), "{refused}");
    assert!(shim.task.start("c1", "").unwrap().pid > 0);
    eventually(SHORT, "it counts on", || count(&bundle) > before);
    let Ok(stats) = shim.task.stats("c1") else {
        known_difference!("go", "from 2.2 on a restored container has no cgroup");
        panic!("a restored container has its metrics");
    };
    assert!(!stats.stats.value.is_empty());
    bed.finish(&bundle, &shim);
}

#[test]
fn a_failed_checkpoint_names_the_log_and_leaves_the_container() {
    let criu = target::criu();
    skip_unless!(
        criu.is_err(),
        "criu works here, and this is about its failure"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let error = checkpoint(&bed, &shim, false).unwrap_err();
    assert!(error.code().is_some(), "{error}");
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let mut request = bundle.create();
    request.checkpoint = bed.path("no-such-image").display().to_string();
    let created = shim.task.create(&request);
    if created.is_ok() {
        let error = shim.task.start("c1", "").unwrap_err();
        assert!(error.code().is_some(), "{error}");
        shim.task.delete("c1", "").unwrap();
    }
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}
