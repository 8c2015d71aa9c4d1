//! Runtimes that fail, are absent, hang, die or print nonsense: the call says so and nothing is
//! left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

const EXEC_REAL: &str = "exec $REAL \"$@\"";

#[test]
fn a_runtime_that_fails_in_create_is_told_in_its_own_words() {
    let bed = Bed::new();
    let script = format!("[ $cmd = create ] && {{ echo out of boats >&2; exit 1; }}; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    let error = shim.task.create(&bundle.create()).unwrap_err();
    assert_eq!(error.code(), Some(Code::UNKNOWN));
    assert!(
        error.message().starts_with("OCI runtime create failed:"),
        "{error}"
    );
    assert_eq!(
        shim.task.state("c1", "").unwrap_err().code(),
        Some(Code::NOT_FOUND)
    );
    bed.finish_empty(&bundle, &shim);
}

#[test]
fn the_last_error_of_the_runtimes_log_is_the_message() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::new(&["/no/such/program"]));
    let error = shim.task.create(&bundle.create()).unwrap_err();
    let text = error.message();
    assert!(text.starts_with("OCI runtime create failed:"), "{text}");
    assert!(
        text.to_lowercase().contains("no such file or directory"),
        "Docker makes 127 of it, in whichever case: {text}"
    );
    bed.finish_empty(&bundle, &shim);
}

#[test]
fn a_runtime_that_is_absent_is_named() {
    let bed = Bed::new();
    let mut bundle = bed.bundle("c1", &Spec::sleeper());
    bundle.options.binary_name = "/no/such/runtime".to_owned();
    let shim = bed.start(&bundle);
    let error = shim.task.create(&bundle.create()).unwrap_err();
    assert!(error.message().contains("/no/such/runtime"), "{error}");
    known_difference!(
        "go",
        "Go's delete action then fails on the absent runtime too"
    );
    bed.finish_empty(&bundle, &shim);
}

#[test]
fn a_runtime_that_prints_nonsense_is_an_error_of_the_call() {
    let bed = Bed::new();
    let script = format!(
        "case $cmd in ps) printf '\\000\\377{{[not json';; create) echo noise; echo noise >&2; \
         exec $REAL \"$@\";; *) {EXEC_REAL};; esac"
    );
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    // Ours may read the pids from the cgroup instead; nonsense must not become an answer.
    if let Ok(pids) = shim.task.pids("c1") {
        assert_eq!(pids.processes.len(), 1);
    }
    shim.task.state("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn a_runtime_that_dies_by_a_signal_is_a_failure() {
    let bed = Bed::new();
    let script = format!("[ $cmd = create ] && kill -9 $$; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    let error = shim.task.create(&bundle.create()).unwrap_err();
    assert!(error.code().is_some(), "{error}");
    bed.finish_empty(&bundle, &shim);
}

#[test]
fn a_create_that_fails_after_the_container_was_made_is_rolled_back() {
    known_difference!("go", "Go leaves the container that runc has made");
    let bed = Bed::new();
    let script = format!("[ $cmd = create ] && {{ $REAL \"$@\"; exit 1; }}; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    shim.task.create(&bundle.create()).unwrap_err();
    bed.finish_empty(&bundle, &shim);
}

#[test]
fn a_start_that_fails_is_told_and_the_container_can_be_deleted() {
    let bed = Bed::new();
    let script = format!("[ $cmd = start ] && exit 1; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    shim.task.create(&bundle.create()).unwrap();
    let error = shim.task.start("c1", "").unwrap_err();
    assert!(
        error.message().starts_with("OCI runtime start failed:"),
        "{error}"
    );
    bed.end(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn each_call_that_the_runtime_fails_fails_alone() {
    let bed = Bed::new();
    let script = format!(
        "case $cmd in pause|resume|update|checkpoint|exec) [ -e $DIR/fail ] && exit 1;; esac; \
         {EXEC_REAL}"
    );
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task.exec(&bundle.exec("e1", &["true"])).unwrap();
    bed.flag("fail");
    let failures = [
        ("Pause", shim.task.pause("c1").err()),
        (
            "Update",
            shim.task.update("c1", &serde_json::json!({})).err(),
        ),
        (
            "Checkpoint",
            shim.task.checkpoint("c1", &bed.path("cp")).err(),
        ),
        ("Start of an exec", shim.task.start("c1", "e1").err()),
    ];
    for (call, error) in failures {
        assert!(error.is_some_and(|e| e.code().is_some()), "{call}");
        assert_eq!(
            shim.task.state("c1", "").unwrap().status(),
            Status::RUNNING,
            "{call}"
        );
    }
    std::fs::remove_file(bed.path("fail")).unwrap();
    shim.task.pause("c1").unwrap();
    shim.task.resume("c1").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn a_runtime_that_hangs_in_create_is_ended_by_delete() {
    known_difference!("go", "Go waits for the hung runtime for ever");
    let bed = Bed::new();
    let script = format!("[ $cmd = create ] && {{ touch $DIR/hung; sleep 1000; }}; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    let request = bundle.create();
    let create = shim.task.spawn(move |t| t.create(&request).map(drop));
    eventually(SHORT, "the runtime hangs", || bed.path("hung").exists());
    shim.task
        .another()
        .patience(SHORT)
        .connect_task("c1")
        .unwrap();
    let deleted = shim.task.another().delete("c1", "");
    assert_ne!(deleted.err(), Some(CallError::Timeout));
    assert!(create.join().unwrap().is_err());
    bed.finish_empty(&bundle, &shim);
}
