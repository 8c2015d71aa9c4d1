//! Further processes in a container.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use protobuf::MessageField;
use wherry_integration::prelude::*;

#[test]
fn an_exec_lives_from_exec_to_delete() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let out = OutputFifo::read(&bed.fifo("out"));
    let mut request = bundle.exec("e1", &["sh", "-c", "echo from exec; exit 5"]);
    request.stdout = out.path();
    request.stderr = bed.drain();
    shim.task.exec(&request).unwrap();
    let pid = shim.task.start("c1", "e1").unwrap().pid;
    assert!(pid > 0);
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 5);
    out.wait_end(SHORT);
    assert_eq!(out.text(), "from exec\n");
    let deleted = shim.task.delete("c1", "e1").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 5));
    bed.finish(&bundle, &shim);
}

#[test]
fn a_duplicate_exec_id_already_exists() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let request = bundle.exec("e1", &["sleep", "1000"]);
    shim.task.exec(&request).unwrap();
    let error = shim.task.exec(&request).unwrap_err();
    assert_eq!(error.code(), Some(Code::ALREADY_EXISTS));
    assert!(error.message().starts_with("id e1"), "{error}");
    shim.task.start("c1", "e1").unwrap();
    let error = shim.task.exec(&request).unwrap_err();
    assert_eq!(error.code(), Some(Code::ALREADY_EXISTS));
    bed.finish(&bundle, &shim);
}

#[test]
fn an_exec_id_may_be_used_again_after_its_delete() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    for status in [1, 2] {
        let script = format!("exit {status}");
        shim.task
            .exec(&bundle.exec("e1", &["sh", "-c", &script]))
            .unwrap();
        shim.task.start("c1", "e1").unwrap();
        assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, status);
        assert_eq!(shim.task.delete("c1", "e1").unwrap().exit_status, status);
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn a_program_that_is_not_there_keeps_the_text_that_docker_maps() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["/no/such/program"]))
        .unwrap();
    let error = shim.task.start("c1", "e1").unwrap_err();
    let text = error.message();
    assert_eq!(error.code(), Some(Code::UNKNOWN), "{error}");
    assert!(text.starts_with("OCI runtime exec failed:"), "{text}");
    let lower = text.to_lowercase();
    assert!(lower.contains("no such file or directory"), "{text}");
    bed.finish(&bundle, &shim);
}

#[test]
fn a_failed_start_leaves_an_exec_that_can_be_deleted() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["/no/such/program"]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap_err();
    let waited = shim.task.patience(SHORT).wait("c1", "e1");
    assert_ne!(
        waited,
        Err(CallError::Timeout),
        "a failed start releases its waiters"
    );
    shim.task.delete("c1", "e1").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn execs_run_beside_each_other() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let bundle = bundle.clone();
            shim.task.another().spawn(move |task| {
                let exec = format!("e{n}");
                let script = format!("exit {n}");
                task.exec(&bundle.exec(&exec, &["sh", "-c", &script]))
                    .unwrap();
                let pid = task.start("c1", &exec).unwrap().pid;
                assert_eq!(task.wait("c1", &exec).unwrap().exit_status, n);
                assert_eq!(task.delete("c1", &exec).unwrap().pid, pid);
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    bed.finish(&bundle, &shim);
}

#[test]
fn an_execs_environment_folder_and_user_are_those_of_its_spec() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let out = OutputFifo::read(&bed.fifo("out"));
    let spec = Spec::sh("pwd; id -u; echo $COLOUR")
        .set("/process/cwd", serde_json::json!("/tmp"))
        .set("/process/user/uid", serde_json::json!(1234))
        .set(
            "/process/env",
            serde_json::json!(["PATH=/bin", "COLOUR=blue"]),
        );
    let mut request = bundle.exec_spec("e1", &spec);
    request.stdout = out.path();
    request.stderr = bed.drain();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    out.wait_end(SHORT);
    assert_eq!(out.text(), "/tmp\n1234\nblue\n");
    bed.finish(&bundle, &shim);
}

#[test]
fn an_exec_without_a_spec_is_refused_and_the_shim_lives() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let mut request = bundle.exec("e1", &["true"]);
    request.spec = MessageField::none();
    let refused = shim
        .task
        .exec(&request)
        .and_then(|_| shim.task.start("c1", "e1").map(drop));
    if target::flavor() == target::Flavor::Go {
        // Go dereferences the missing message; its server answers nothing or an error.
        assert!(refused.is_err());
        return;
    }
    assert!(refused.unwrap_err().code().is_some());
    shim.task.state("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn a_running_execs_pid_file_is_removed_with_it() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    let pid = shim.task.start("c1", "e1").unwrap().pid;
    let file = bundle.path.join("e1.pid");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), pid.to_string());
    shim.task.kill("c1", "e1", 9, false).unwrap();
    shim.task.wait("c1", "e1").unwrap();
    shim.task.delete("c1", "e1").unwrap();
    assert!(!file.exists());
    bed.finish(&bundle, &shim);
}

#[test]
fn the_end_of_the_init_ends_its_execs() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    shim.task.start("c1", "e1").unwrap();
    shim.task.kill("c1", "", 9, false).unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 137);
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    bed.finish(&bundle, &shim);
}
