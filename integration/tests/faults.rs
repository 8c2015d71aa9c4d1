//! What goes wrong around a shim: runtimes, clients, disks, frames, names and strangers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use protobuf::MessageField;
use wherry_integration::bundle::json_any;
use wherry_integration::client::TASK_V2;
use wherry_integration::prelude::*;
use wherry_integration::wire::{Frame, TYPE_REQUEST, request};

const EXEC_REAL: &str = "exec $REAL \"$@\"";

/// Ends the shim of a container that never came to be, and checks that nothing is left.
fn nothing_left(bed: &Bed, bundle: &Bundle, shim: &Shim) {
    eventually(SHORT, "no process of the container", || {
        host::cgroup_members(&bundle.cgroup).is_empty()
    });
    bed.shut(bundle, shim);
    bed.remove(bundle);
    bed.assert_clean();
}

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
    nothing_left(&bed, &bundle, &shim);
}

#[test]
fn the_last_error_of_the_runtimes_log_is_the_message() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::new(&["/no/such/program"]));
    let error = shim.task.create(&bundle.create()).unwrap_err();
    let text = error.message();
    assert!(text.starts_with("OCI runtime create failed:"), "{text}");
    assert!(
        text.contains("no such file or directory"),
        "Docker makes 127 of it: {text}"
    );
    nothing_left(&bed, &bundle, &shim);
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
    nothing_left(&bed, &bundle, &shim);
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
    nothing_left(&bed, &bundle, &shim);
}

#[test]
fn a_create_that_fails_after_the_container_was_made_is_rolled_back() {
    known_difference!("go", "Go leaves the container that runc has made");
    let bed = Bed::new();
    let script = format!("[ $cmd = create ] && {{ $REAL \"$@\"; exit 1; }}; {EXEC_REAL}");
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &script);
    shim.task.create(&bundle.create()).unwrap_err();
    nothing_left(&bed, &bundle, &shim);
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
    nothing_left(&bed, &bundle, &shim);
}

/// A runtime that is slow in one subcommand: it touches `began` and waits for `go`.
fn slow(command: &str) -> String {
    format!(
        "[ $cmd = {command} ] && {{ touch $DIR/began; \
         n=0; while ! [ -e $DIR/go ] && [ $n -lt 1000 ]; do sleep 0.02; n=$((n+1)); done; }}; {EXEC_REAL}"
    )
}

/// A client that goes away in the middle of `call`; the operation must be whole in the end.
fn client_vanishes(
    command: &str,
    call: impl FnOnce(&TaskClient) -> Result<(), CallError> + Send + 'static,
    by_timeout: bool,
    prepare: impl Fn(&Bed, &Bundle, &Shim),
    whole: impl Fn(&Bed, &Bundle, &Shim),
) {
    known_difference!(
        "go",
        "the client's deadline and connection end the running runc"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &slow(command));
    prepare(&bed, &bundle, &shim);
    let client = shim.task.another();
    let client = if by_timeout {
        client.deadline(Duration::from_millis(300))
    } else {
        client
    };
    let pending = client.spawn(call);
    eventually(SHORT, "the runtime is at it", || bed.path("began").exists());
    if !by_timeout {
        client.hang_up();
    }
    let result = pending.join().unwrap();
    assert!(result.is_err(), "{result:?}");
    bed.flag("go");
    whole(&bed, &bundle, &shim);
    if shim.task.state("c1", "").is_ok() {
        bed.finish(&bundle, &shim);
    } else {
        nothing_left(&bed, &bundle, &shim);
    }
}

fn is(status: Status) -> impl Fn(&Bed, &Bundle, &Shim) {
    move |_, _, shim| {
        eventually(SHORT, "the operation is whole", || {
            shim.task
                .state("c1", "")
                .is_ok_and(|s| s.status() == status)
        });
    }
}

fn create(_: &Bed, bundle: &Bundle, shim: &Shim) {
    shim.task.create(&bundle.create()).unwrap();
}

fn create_and_start(bed: &Bed, bundle: &Bundle, shim: &Shim) {
    create(bed, bundle, shim);
    shim.task.start("c1", "").unwrap();
}

macro_rules! vanishing_clients {
    ($($call:ident, $command:expr, $prepare:expr, $do:expr, $whole:expr;)*) => {
        mod a_client_that_vanishes {
            use super::*;
            $(mod $call {
                use super::*;
                #[test]
                fn by_hanging_up() { client_vanishes($command, $do, false, $prepare, $whole); }
                #[test]
                fn by_timing_out() { client_vanishes($command, $do, true, $prepare, $whole); }
            })*
        }
    };
}

vanishing_clients! {
    in_start, "start", create, |t| t.start("c1", "").map(drop), is(Status::RUNNING);
    in_pause, "pause", create_and_start, |t| t.pause("c1").map(drop), |b, u, s| {
        is(Status::PAUSED)(b, u, s);
        s.task.resume("c1").unwrap();
    };
    in_update, "update", create_and_start,
        |t| t.update("c1", &serde_json::json!({"pids": {"limit": 55}})).map(drop),
        |_, bundle, _| {
            eventually(SHORT, "the limit is set", || {
                host::cgroups(&bundle.cgroup).iter().any(|dir| {
                    std::fs::read_to_string(dir.join("pids.max")).is_ok_and(|v| v.trim() == "55")
                })
            });
        };
    in_exec, "exec", |b, u, s| {
        create_and_start(b, u, s);
        s.task.exec(&u.exec("e1", &["sleep", "1000"])).unwrap();
    }, |t| t.start("c1", "e1").map(drop), |_, _, s| {
        eventually(SHORT, "the exec runs", || {
            s.task.state("c1", "e1").is_ok_and(|s| s.status() == Status::RUNNING)
        });
    };
    in_delete, "delete", |b, u, s| {
        create_and_start(b, u, s);
        s.task.kill("c1", "", 9, false).unwrap();
        s.task.wait("c1", "").unwrap();
    }, |t| t.delete("c1", "").map(drop), |_, _, s| {
        assert_eq!(s.task.delete("c1", "").unwrap().exit_status, 137);
    };
}

#[test]
fn a_full_disk_under_the_bundle_is_told_and_rolled_back() {
    let bed = Bed::new();
    let dir = bed.bundles().join("c1");
    std::fs::create_dir_all(&dir).unwrap();
    mount(
        Some("tmpfs"),
        &dir,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=4m"),
    )
    .unwrap();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let mut filler = std::fs::File::create(dir.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    let error = shim.task.create(&bundle.create()).unwrap_err();
    if target::flavor() != target::Flavor::Go {
        assert!(
            error.message().contains("No space left") || error.message().contains("no space left"),
            "{error}"
        );
        let state = shim.task.state("c1", "").unwrap_err();
        assert_eq!(state.code(), Some(Code::NOT_FOUND));
    }
    drop(filler);
    std::fs::remove_file(dir.join("filler")).unwrap();
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    bed.end(&bundle, &shim);
    umount2(&dir, MntFlags::MNT_DETACH).unwrap();
    bed.assert_clean();
}

#[test]
fn malformed_and_oversized_frames_end_at_most_their_connection() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let good = request(1, TASK_V2, "State", 0, Vec::new()).encode();
    let mut frames: Vec<(&str, Vec<u8>)> = vec![
        ("half a header", vec![0, 0, 0]),
        ("half a payload", good[..good.len() / 2].to_vec()),
        (
            "a length past the limit",
            Frame::header((4 << 20) + 1, 1, TYPE_REQUEST, 0).to_vec(),
        ),
        (
            "a length of 4 GiB",
            Frame::header(u32::MAX, 1, TYPE_REQUEST, 0).to_vec(),
        ),
        ("an unknown type", Frame::header(0, 1, 99, 0).to_vec()),
        (
            "an even stream",
            request(2, TASK_V2, "State", 0, Vec::new()).encode(),
        ),
        (
            "a response from a client",
            Frame::header(0, 1, 2, 0).to_vec(),
        ),
    ];
    let garbage = Frame {
        stream: 1,
        kind: TYPE_REQUEST,
        flags: 0,
        payload: vec![0xff; 100],
    };
    frames.push(("a payload that is no request", garbage.encode()));
    let nonsense = request(1, TASK_V2, "Kill", 0, vec![0xff; 100]).encode();
    frames.push(("a message that is no message", nonsense));
    let mut noise = vec![0_u8; 4096];
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut noise)
        .unwrap();
    frames.push(("noise", noise));
    for (what, bytes) in &frames {
        let mut stream = UnixStream::connect(&shim.socket).unwrap();
        // The shim may hang up in the middle of it.
        let _ = stream.write_all(bytes);
        drop(stream);
        assert!(shim.alive(), "{what} killed the shim");
        let state = shim.task.another().patience(SHORT).state("c1", "");
        assert_eq!(state.unwrap().status(), Status::RUNNING, "{what}");
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn an_oversized_frame_does_not_grow_the_shim() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(&shim.socket).unwrap();
        let _ = stream.write_all(&Frame::header(u32::MAX, 1, TYPE_REQUEST, 0));
        streams.push(stream);
    }
    shim.task.state("c1", "").unwrap();
    let kb: u64 = host::status_field(shim.pid, "VmRSS")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(kb < 100_000, "{kb} kB resident");
    drop(streams);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_missing_bundle_is_an_error_that_names_it() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let mut request = bundle.create();
    let nowhere = bed.path("no-such-bundle").display().to_string();
    request.bundle.clone_from(&nowhere);
    let error = shim.task.create(&request).unwrap_err();
    assert!(error.message().contains("no-such-bundle"), "{error}");
    nothing_left(&bed, &bundle, &shim);
}

#[test]
fn a_malformed_config_is_an_error_and_leaves_nothing() {
    let bed = Bed::new();
    for (id, text) in [("c1", "{"), ("c2", "[]"), ("c3", "{\"process\": 7}")] {
        let (bundle, shim) = bed.shim(id, &Spec::sleeper());
        std::fs::write(bundle.path.join("config.json"), text).unwrap();
        let error = shim.task.create(&bundle.create()).unwrap_err();
        assert!(error.code().is_some(), "{text}: {error}");
        eventually(SHORT, "nothing runs", || {
            host::cgroup_members(&bundle.cgroup).is_empty()
        });
        bed.shut(&bundle, &shim);
        bed.remove(&bundle);
    }
    bed.assert_clean();
}

#[test]
fn a_malformed_config_fails_start_and_leaves_nothing() {
    known_difference!("go-v1", "Go's v1 does not read config.json in start");
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    std::fs::write(bundle.path.join("config.json"), "{").unwrap();
    let outcome = bed.start_request(&bundle).run();
    assert_eq!(
        outcome.code,
        Some(1),
        "{}",
        String::from_utf8_lossy(&outcome.output)
    );
    bed.discard(&bundle);
    bed.assert_clean();
}

#[test]
fn foreign_and_broken_options_are_an_invalid_argument() {
    known_difference!(
        "go",
        "Go panics on a foreign type of options or takes what it can decode"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let mut foreign = bundle.create();
    foreign.options = MessageField::some(json_any("example.com/Other", &serde_json::json!({})));
    let mut broken = bundle.create();
    broken.options.mut_or_insert_default().value = vec![0xff; 20];
    for request in [foreign, broken] {
        let error = shim.task.create(&request).unwrap_err();
        assert_eq!(error.code(), Some(Code::INVALID_ARGUMENT), "{error}");
    }
    nothing_left(&bed, &bundle, &shim);
}

#[test]
fn ids_that_are_paths_or_too_long_are_refused() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let long = "x".repeat(2000);
    for id in ["../up", "a/b", "..", "", "a\0b", long.as_str()] {
        let mut request = bundle.create();
        request.id = id.to_owned();
        let error = shim.task.create(&request).unwrap_err();
        assert!(error.code().is_some(), "{id:?}: {error}");
        if target::flavor() != target::Flavor::Go {
            assert_eq!(
                error.code(),
                Some(Code::INVALID_ARGUMENT),
                "{id:?}: {error}"
            );
        }
    }
    shim.task.connect_task("c1").unwrap();
    nothing_left(&bed, &bundle, &shim);
}

#[test]
fn exec_ids_that_are_paths_or_too_long_are_refused() {
    known_difference!("go", "Go takes any exec id and makes a path of it");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let long = "x".repeat(2000);
    for exec in ["../up", "a/b", "..", "a\0b", long.as_str()] {
        let error = shim.task.exec(&bundle.exec(exec, &["true"])).unwrap_err();
        assert_eq!(
            error.code(),
            Some(Code::INVALID_ARGUMENT),
            "{exec:?}: {error}"
        );
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn start_refuses_ids_that_are_paths() {
    known_difference!("go", "Go hashes any id into a socket");
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    for id in ["../up", "a/b", ".."] {
        let mut request = bed.start_request(&bundle);
        request.id = id.to_owned();
        let outcome = request.run();
        assert_eq!(
            outcome.code,
            Some(1),
            "{id}: {}",
            String::from_utf8_lossy(&outcome.output)
        );
    }
    assert!(bed.processes().is_empty());
}

/// The half of the next test that runs under another uid; alone it does nothing.
#[test]
fn peer_of_another_uid() {
    let Some(socket) = std::env::var_os("WHERRY_PEER_SOCKET") else {
        return;
    };
    let task = TaskClient::connect(socket.as_ref(), TASK_V2).expect("connect(2) succeeds");
    let error = task
        .patience(SHORT)
        .connect_task("c1")
        .expect_err("a stranger gets no answer");
    assert_eq!(error, CallError::Closed);
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test runs itself under another uid"
)]
fn a_peer_of_another_uid_is_hung_up_on() {
    skip_unless!(
        target::find_in_path("setpriv").is_some(),
        "setpriv is not installed"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    // The capability brings it past the socket's mode, so that only the check of the peer is left.
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"])
        .arg(std::env::current_exe().unwrap())
        .args(["peer_of_another_uid", "--exact", "--nocapture"])
        .env("WHERRY_PEER_SOCKET", &shim.socket)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    bed.finish(&bundle, &shim);
}
