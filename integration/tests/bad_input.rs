//! What no shim should be sent, and a full disk: frames, bundles, options, ids and strangers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use protobuf::MessageField;
use wherry_integration::bundle::json_any;
use wherry_integration::client::TASK_V2;
use wherry_integration::prelude::*;
use wherry_integration::wire::{Frame, TYPE_REQUEST, request};

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
    let service = shim.task.service_name();
    let good = request(1, service, "State", 0, Vec::new()).encode();
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
            request(2, service, "State", 0, Vec::new()).encode(),
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
    let nonsense = request(1, service, "Kill", 0, vec![0xff; 100]).encode();
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
    bed.finish_empty(&bundle, &shim);
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
    bed.finish_empty(&bundle, &shim);
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
    bed.finish_empty(&bundle, &shim);
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
