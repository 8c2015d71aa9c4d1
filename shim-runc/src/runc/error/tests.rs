//! Tests of the classifier of runtimes' errors.

use super::*;

#[derive(Deserialize)]
struct Captured {
    case: String,
    status: u32,
    log: String,
    output: String,
}

fn captured(runtime: &str) -> Vec<Captured> {
    let text = match runtime {
        "runc" => include_str!("../testdata/runc-1.1.5.jsonl"),
        _ => include_str!("../testdata/crun-1.8.1.jsonl"),
    };
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn failure(runtime: &str, case: &str) -> RuntimeError {
    let all = captured(runtime);
    let found = all.iter().find(|c| c.case == case);
    let c = found.unwrap_or_else(|| panic!("{runtime} {case} was not captured"));
    let op = Operation::ALL
        .into_iter()
        .find(|op| case.starts_with(op.verb()))
        .unwrap_or(Operation::Create);
    RuntimeError::from_exit(op, runtime, c.status, c.log.as_bytes(), c.output.as_bytes())
}

#[test]
fn captured_texts_are_classified() {
    use ErrorKind::*;
    for (case, runc, crun) in [
        ("create-exists", AlreadyExists, AlreadyExists),
        ("create-missing", ExecutableNotFound, ExecutableNotFound),
        ("create-missingpath", ExecutableNotFound, ExecutableNotFound),
        ("create-perm", PermissionDenied, PermissionDenied),
        ("create-notdir", NotADirectory, NotADirectory),
        ("exec-missing", ExecutableNotFound, ExecutableNotFound),
        ("exec-missing-path", ExecutableNotFound, ExecutableNotFound),
        ("exec-perm", PermissionDenied, PermissionDenied),
        ("exec-notdir", NotADirectory, NotADirectory),
        ("exec-paused", Paused, Paused),
        ("exec-stopped", NotRunning, NotRunning),
        ("start-again", AlreadyRunning, AlreadyRunning),
        ("start-stopped", NotRunning, NotRunning),
        ("start-nonexistent", NoSuchContainer, NoSuchContainer),
        ("exec-nonexistent", NoSuchContainer, NoSuchContainer),
        ("kill-nonexistent", NoSuchContainer, NoSuchContainer),
        ("pause-nonexistent", NoSuchContainer, NoSuchContainer),
        ("ps-nonexistent", NoSuchContainer, NoSuchContainer),
        ("delete-nonexistent", NoSuchContainer, NoSuchContainer),
        ("delete-running", NotStopped, NotStopped),
        ("kill-stopped", NotRunning, NotRunning),
        ("kill-badsig", Other, Other),
        ("pause-stopped", NotRunning, NotRunning),
        ("create-broken", Other, Other),
        ("create-nobundle", Other, Other),
        ("create-badid", Other, Other),
        ("usage", Other, Other),
    ] {
        assert_eq!(failure("runc", case).kind, runc, "runc {case}");
        assert_eq!(failure("crun", case).kind, crun, "crun {case}");
    }
    assert_eq!(failure("runc", "resume-running").kind, NotPaused);
    // crun 1.8.1 dies of SIGSEGV listing a stopped container.
    assert_eq!(failure("crun", "ps-stopped").kind, Other);
}

#[test]
fn every_captured_failure_gets_a_text() {
    for runtime in ["runc", "crun"] {
        for c in captured(runtime).iter().filter(|c| c.status != 0) {
            let message = failure(runtime, &c.case).message;
            assert!(
                !message.is_empty() && !message.ends_with(": "),
                "{}: {message}",
                c.case
            );
        }
    }
}

#[test]
fn wording_is_that_of_the_go_shim() {
    // Each line as the Go shim of containerd 1.6.20 sent it.
    for (runtime, case, want) in [
        (
            "runc",
            "create-missing",
            "OCI runtime create failed: runc create failed: unable to start container \
             process: exec: \"/bin/nosuch\": stat /bin/nosuch: no such file or directory",
        ),
        (
            "runc",
            "exec-missing",
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \
             \"/bin/nosuch\": stat /bin/nosuch: no such file or directory",
        ),
        ("runc", "kill-stopped", "process already finished"),
        ("runc", "kill-nonexistent", "no such container"),
        (
            "runc",
            "start-stopped",
            "OCI runtime start failed: cannot start a container that has stopped",
        ),
    ] {
        assert_eq!(failure(runtime, case).message, want, "{runtime} {case}");
    }
    let kill = failure("runc", "kill-badsig");
    assert!(!kill.not_found);
    assert_eq!(
        kill.message,
        "unknown error after kill: runc did not terminate successfully: exit status 1: \
         unable to signal init: invalid argument"
    );
    for runtime in ["runc", "crun"] {
        assert!(failure(runtime, "kill-stopped").not_found);
        assert!(failure(runtime, "kill-nonexistent").not_found);
    }
}

#[test]
fn a_runtime_that_prints_nonsense_is_worded_as_by_the_go_shim() {
    let fail = |op, log: &str, output: &str, status| {
        RuntimeError::from_exit(op, "/x/odd", status, log.as_bytes(), output.as_bytes()).message
    };
    let exit = "/x/odd did not terminate successfully: exit status";
    assert_eq!(
        fail(Operation::Create, "", "zork 42\n", 1),
        format!(
            "OCI runtime create failed: unable to retrieve OCI runtime error (no log was \
             written): {exit} 1: zork 42"
        )
    );
    let text = fail(Operation::Create, "not json\n", "", 3);
    assert!(
        text.starts_with("OCI runtime create failed: unable to retrieve OCI"),
        "{text}"
    );
    assert!(text.ends_with(&format!("): {exit} 3")), "{text}");
    assert_eq!(
        fail(
            Operation::Create,
            "{\"level\":\"warning\",\"msg\":\"w\"}",
            "",
            2
        ),
        format!("OCI runtime create failed: {exit} 2")
    );
    assert_eq!(
        fail(Operation::Kill, "", "boom kill\n", 7),
        format!("unknown error after kill: {exit} 7: boom kill")
    );
    assert_eq!(
        fail(Operation::Ps, "", "boom ps\n", 7),
        format!("{exit} 7: boom ps")
    );
    // The log of a call that was cut off, and other runtimes' forms.
    assert_eq!(
        fail(
            Operation::Start,
            "cut\"}\n{\"level\":\"error\",\"msg\":\" a \"}\n{\"lev",
            "",
            1
        ),
        "OCI runtime start failed: a"
    );
    assert_eq!(
        fail(
            Operation::Start,
            "{\"level\":\"ERROR\",\"fields\":{\"message\":\"y\"}}",
            "",
            1
        ),
        "OCI runtime start failed: y"
    );
    assert_eq!(
        fail(
            Operation::Start,
            "{\"level\":\"fatal\",\"msg\":\"f\"}",
            "",
            1
        ),
        "OCI runtime start failed: f"
    );
}

#[test]
fn a_runtime_that_cannot_be_executed_is_named() {
    let source = io::Error::from_raw_os_error(libc::ENOENT);
    let step = Step::Exec("/no/runc".into());
    let error = io::Error::new(source.kind(), SpawnError { step, source });
    assert_eq!(
        RuntimeError::from_spawn(Operation::Create, "/no/runc", &error).message,
        "OCI runtime create failed: unable to retrieve OCI runtime error (the runtime was not \
         started): fork/exec /no/runc: no such file or directory"
    );
    // A bundle that is gone is not taken for a runtime that is.
    let source = io::Error::from_raw_os_error(libc::ENOENT);
    let step = Step::WorkingDirectory("/b".into());
    let error = io::Error::new(source.kind(), SpawnError { step, source });
    let text = RuntimeError::from_spawn(Operation::Start, "runc", &error).message;
    assert!(
        text.ends_with("chdir /b: No such file or directory"),
        "{text}"
    );
}

#[test]
fn a_checkpoint_points_to_the_log() {
    let e = RuntimeError::from_exit(Operation::Checkpoint, "runc", 1, b"", b"criu failed\nmore");
    assert_eq!(
        e.with_criu_log(Path::new("/b/criu-dump.log")).message,
        "runc did not terminate successfully: exit status 1: criu failed path= \
         /b/criu-dump.log"
    );
}
