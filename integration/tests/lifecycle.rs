//! The life of one container: create, start, exit, delete, and what State, Wait, Connect and
//! Shutdown say on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use wherry_integration::client::TASK_V3;
use wherry_integration::prelude::*;

/// Seconds of Go's zero time, which an exit time that is not yet set carries.
const ZERO_TIME: i64 = -62_135_596_800;

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

fn is_unset(time: Option<&Timestamp>) -> bool {
    time.is_none_or(|t| t.seconds == ZERO_TIME)
}

#[test]
fn a_container_lives_from_create_to_delete_and_leaves_nothing() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("exit 7"));
    let created = shim.task.create(&bundle.create()).unwrap();
    assert!(created.pid > 0);
    let started = shim.task.start("c1", "").unwrap();
    assert_eq!(
        started.pid, created.pid,
        "Start answers the pid that Create answered"
    );
    let exit = shim.task.wait("c1", "").unwrap();
    assert_eq!(exit.exit_status, 7);
    let deleted = shim.task.delete("c1", "").unwrap();
    assert_eq!(deleted.pid, created.pid);
    assert_eq!(deleted.exit_status, 7);
    assert_eq!(deleted.exited_at, exit.exited_at, "one exit has one time");
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn the_same_life_over_task_v3() {
    known_difference!(
        "go",
        "the 1.x shims serve task v2 only, the 2.x ones v3 only"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("exit 3"));
    let task = shim.task.service(TASK_V3);
    let pid = task.create(&bundle.create()).unwrap().pid;
    assert_eq!(task.start("c1", "").unwrap().pid, pid);
    assert_eq!(task.wait("c1", "").unwrap().exit_status, 3);
    assert_eq!(
        shim.task.state("c1", "").unwrap().exit_status,
        3,
        "v2 sees the same task"
    );
    assert_eq!(task.delete("c1", "").unwrap().exit_status, 3);
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn exit_codes_arrive_unchanged() {
    let bed = Bed::new();
    for (id, script, status) in [
        ("zero", "exit 0", 0),
        ("one", "exit 1", 1),
        ("high", "exit 255", 255),
        ("cut", "exit 256", 0),
    ] {
        let (bundle, shim) = bed.running(id, &Spec::sh(script));
        assert_eq!(shim.task.wait(id, "").unwrap().exit_status, status, "{id}");
        assert_eq!(shim.task.state(id, "").unwrap().exit_status, status, "{id}");
        assert_eq!(
            shim.task.delete(id, "").unwrap().exit_status,
            status,
            "{id}"
        );
        bed.shut(&bundle, &shim);
        bed.remove(&bundle);
    }
    bed.assert_clean();
}

#[test]
fn death_by_signal_is_128_and_the_signal() {
    let bed = Bed::new();
    // The init of a pid namespace ignores signals it does not handle; SIGKILL from outside works.
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task.kill("c1", "", 9, false).unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_created_container_tells_its_state() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let out = OutputFifo::read(&bed.fifo("out"));
    let err = OutputFifo::read(&bed.fifo("err"));
    let request = bundle.create_with("", &out.path(), &err.path());
    let pid = shim.task.create(&request).unwrap().pid;
    let state = shim.task.state("c1", "").unwrap();
    assert_eq!(state.id, "c1");
    assert_eq!(state.bundle, bundle.path.display().to_string());
    assert_eq!(state.pid, pid);
    assert_eq!(state.status(), Status::CREATED);
    assert_eq!(state.stdin, "");
    assert_eq!(state.stdout, out.path());
    assert_eq!(state.stderr, err.path());
    assert!(!state.terminal);
    assert_eq!(state.exit_status, 0);
    assert!(is_unset(state.exited_at.as_ref()), "{:?}", state.exited_at);
    assert_eq!(state.exec_id, "");
    bed.finish(&bundle, &shim);
}

#[test]
fn an_exit_time_that_is_not_yet_set_is_year_one() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let exited_at = shim.task.state("c1", "").unwrap().exited_at;
    assert_eq!(
        exited_at.as_ref().expect("the field is set").seconds,
        ZERO_TIME
    );
    bed.finish(&bundle, &shim);
}

#[test]
fn state_follows_the_container() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let status = || shim.task.state("c1", "").unwrap().status();
    assert_eq!(status(), Status::RUNNING);
    shim.task.pause("c1").unwrap();
    assert_eq!(status(), Status::PAUSED);
    shim.task.resume("c1").unwrap();
    assert_eq!(status(), Status::RUNNING);
    let before = now();
    shim.task.kill("c1", "", 9, false).unwrap();
    shim.task.wait("c1", "").unwrap();
    let state = shim.task.state("c1", "").unwrap();
    assert_eq!(state.status(), Status::STOPPED);
    assert_eq!(state.exit_status, 137);
    let at = state.exited_at.seconds;
    assert!(
        (before - 1..=now() + 1).contains(&at),
        "exited at {at}, killed at {before}"
    );
    bed.finish(&bundle, &shim);
}

#[test]
fn wait_answers_every_waiter_once_the_process_has_ended() {
    let bed = Bed::new();
    let (bundle, shim) = bed.created("c1", &Spec::sleeper());
    let mut waiters: Vec<_> = (0..5)
        .map(|_| shim.task.spawn(|t| t.wait("c1", "")))
        .collect();
    let other = shim.task.another();
    waiters.push(other.spawn(|t| t.wait("c1", "")));
    shim.task.start("c1", "").unwrap();
    shim.task.kill("c1", "", 9, false).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap().unwrap().exit_status, 137);
    }
    assert_eq!(
        shim.task.wait("c1", "").unwrap().exit_status,
        137,
        "a late waiter too"
    );
    bed.finish(&bundle, &shim);
}

#[test]
fn a_created_container_may_be_deleted_without_a_start() {
    let bed = Bed::new();
    let (bundle, shim) = bed.created("c1", &Spec::sleeper());
    let pid = shim.task.state("c1", "").unwrap().pid;
    shim.task.delete("c1", "").unwrap();
    let pid = i32::try_from(pid).unwrap();
    eventually(SHORT, "the init is gone", || !host::alive(pid));
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_created_container_may_be_killed_without_a_start() {
    let bed = Bed::new();
    let (bundle, shim) = bed.created("c1", &Spec::sleeper());
    shim.task.kill("c1", "", 9, false).unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 137);
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::STOPPED);
    assert_eq!(shim.task.delete("c1", "").unwrap().exit_status, 137);
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn connect_tells_the_pids_and_never_fails() {
    known_difference!(
        "go-v1",
        "Go's v1 has one container and does not look at the id"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let connected = shim.task.connect_task("c1").unwrap();
    assert_eq!(i32::try_from(connected.shim_pid).unwrap(), shim.pid);
    assert_eq!(connected.task_pid, 0, "no task yet");
    let pid = shim.task.create(&bundle.create()).unwrap().pid;
    let connected = shim.task.connect_task("c1").unwrap();
    assert_eq!(connected.task_pid, pid);
    assert_eq!(connected.version, "");
    let unknown = shim.task.connect_task("nobody").unwrap();
    assert_eq!(unknown.task_pid, 0);
    assert_eq!(unknown.shim_pid, connected.shim_pid);
    bed.finish(&bundle, &shim);
}

#[test]
fn shutdown_does_nothing_while_a_container_remains() {
    known_difference!("v1", "the v1 flavour's Shutdown is unconditional");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task.shutdown("c1").unwrap();
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn shutdown_of_an_empty_shim_ends_it_and_removes_its_socket() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    assert!(shim.socket.exists());
    bed.shut(&bundle, &shim);
    eventually(SHORT, "the socket is removed", || !shim.socket.exists());
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn unknown_containers_and_execs_are_not_found_by_their_text() {
    known_difference!(
        "go-v1",
        "Go's v1 has one container and does not look at the id"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let task = &shim.task;
    let containers = [
        ("State", task.state("nobody", "").err()),
        ("Start", task.start("nobody", "").err()),
        ("Kill", task.kill("nobody", "", 9, false).err()),
        ("Wait", task.wait("nobody", "").err()),
        ("Pids", task.pids("nobody").err()),
        ("Stats", task.stats("nobody").err()),
        ("Pause", task.pause("nobody").err()),
        ("Resume", task.resume("nobody").err()),
        ("CloseIO", task.close_io("nobody", "").err()),
        ("ResizePty", task.resize("nobody", "", 1, 1).err()),
        (
            "Update",
            task.update("nobody", &serde_json::json!({})).err(),
        ),
        (
            "Checkpoint",
            task.checkpoint("nobody", &bed.path("cp")).err(),
        ),
        ("Delete", task.delete("nobody", "").err()),
    ];
    for (call, error) in containers {
        let error = error.unwrap_or_else(|| panic!("{call} of an unknown container succeeded"));
        assert_eq!(error.code(), Some(Code::NOT_FOUND), "{call}: {error}");
        assert_eq!(
            error.message(),
            "container not created: not found",
            "{call}"
        );
    }
    let execs = [
        ("State", task.state("c1", "e9").err()),
        ("Start", task.start("c1", "e9").err()),
        ("Kill", task.kill("c1", "e9", 9, false).err()),
        ("Wait", task.wait("c1", "e9").err()),
        ("CloseIO", task.close_io("c1", "e9").err()),
        ("ResizePty", task.resize("c1", "e9", 1, 1).err()),
        ("Delete", task.delete("c1", "e9").err()),
    ];
    for (call, error) in execs {
        let error = error.unwrap_or_else(|| panic!("{call} of an unknown exec succeeded"));
        // Go 1.x forgets to give CloseIO's refusal its class; the text is the same.
        if call != "CloseIO" || target::flavor() != target::Flavor::Go {
            assert_eq!(error.code(), Some(Code::NOT_FOUND), "{call}: {error}");
        }
        assert!(
            error.message().starts_with("process does not exist e9"),
            "{call}: {error}"
        );
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn creating_an_id_twice_is_refused_and_harms_nothing() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let error = shim.task.create(&bundle.create()).unwrap_err();
    assert!(error.code().is_some(), "{error}");
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn an_id_may_be_created_again_after_its_delete() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sh("exit 4"));
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 4);
    shim.task.delete("c1", "").unwrap();
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 4);
    bed.finish(&bundle, &shim);
}

#[test]
fn an_unknown_service_or_method_is_unimplemented() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let nowhere = shim.task.service("containerd.nowhere.v1.Nothing");
    let error = nowhere.connect_task("c1").unwrap_err();
    assert_eq!(error.code(), Some(Code::UNIMPLEMENTED), "{error}");
    let error = shim.task.call_raw("Levitate", Vec::new()).unwrap_err();
    assert_eq!(error.code(), Some(Code::UNIMPLEMENTED), "{error}");
    assert!(shim.task.connect_task("c1").is_ok());
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn bundle_files_are_those_of_the_go_shim() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let read = |name: &str| std::fs::read_to_string(bundle.path.join(name)).unwrap();
    let pid = shim.task.state("c1", "").unwrap().pid;
    assert_eq!(read("init.pid"), pid.to_string());
    assert_eq!(
        read("runtime"),
        target::runtime_path().display().to_string()
    );
    let options: serde_json::Value = serde_json::from_str(&read("options.json")).unwrap();
    assert_eq!(options["root"], bed.runtime_root().display().to_string());
    assert_eq!(
        options["binary_name"],
        target::runtime_path().display().to_string()
    );
    assert_eq!(
        options.as_object().unwrap().len(),
        2,
        "empty fields are left out: {options}"
    );
    assert_eq!(read("address"), format!("unix://{}", shim.socket.display()));
    bed.finish(&bundle, &shim);
}

#[test]
fn without_options_the_defaults_of_runc_apply() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let mut request = bundle.create();
    request.options = protobuf::MessageField::none();
    shim.task.create(&request).unwrap();
    let state = std::path::Path::new("/run/containerd/runc").join(bed.namespace());
    assert!(
        state.join("c1").exists(),
        "state lies in {}",
        state.display()
    );
    bed.end(&bundle, &shim);
    assert!(!state.join("c1").exists());
    bed.remove(&bundle);
    bed.assert_clean();
}
