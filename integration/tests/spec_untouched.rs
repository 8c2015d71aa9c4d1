//! The specification reaches the runtime as its author wrote it, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::fs;

use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use serde_json::json;
use wherry_integration::bundle::PROCESS_SPEC;
use wherry_integration::prelude::*;

/// Keeps what create and exec are given, then runs the runtime.
const KEEPING: &str = "[ $cmd = create ] && cp config.json $DIR/config; \
    was=; for a in \"$@\"; do [ \"$was\" = --process ] && cp \"$a\" $DIR/process; was=$a; done; \
    exec $REAL \"$@\"";

#[test]
fn an_execs_process_is_passed_on_byte_for_byte() {
    known_difference!(
        "go",
        "Go decodes the process and writes what it knows of it"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), KEEPING);
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    // Fields, numbers, blanks and an order that no encoder would write again.
    let text = "{ \"x-new\" : {\"deep\": [1.50, 1e2, 18446744073709551615, null]},\n\t\"cwd\":\"/\", \
         \"user\":{\"gid\":0,\"uid\":0, \"shoe\": 44},\"args\":[ \"sh\",\"-c\",\"exit 9\" ],\
         \"env\":[\"PATH=/bin\",\"A=\\u00e9\\/\"],\"terminal\" : false, \"rlimits\":[ ] }\n";
    let mut any = Any::new();
    any.type_url = PROCESS_SPEC.to_owned();
    any.value = text.as_bytes().to_vec();
    let mut request = bundle.exec("e1", &["true"]);
    request.spec = MessageField::some(any);
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 9);
    let passed = fs::read_to_string(bed.path("process")).unwrap();
    assert_eq!(passed, text);
    bed.finish(&bundle, &shim);
}

#[test]
fn an_execs_terminal_is_the_requests_and_unknown_fields_stay() {
    let bed = Bed::new();
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), KEEPING);
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    let spec = Spec::sh("test -t 1").set("/process/x-new", json!({"deep": [1, "two"]}));
    let mut request = bundle.exec_spec("e1", &spec);
    request.terminal = true;
    request.stdout = bed.drain();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 0);
    let passed: serde_json::Value =
        serde_json::from_slice(&fs::read(bed.path("process")).unwrap()).unwrap();
    assert_eq!(passed["terminal"], json!(true));
    if passed["x-new"].is_null() {
        known_difference!(
            "go",
            "Go decodes the process and writes what it knows of it"
        );
    }
    assert_eq!(passed["x-new"], json!({"deep": [1, "two"]}));
    bed.finish(&bundle, &shim);
}

#[test]
fn config_json_is_never_written() {
    let bed = Bed::new();
    let spec = Spec::sleeper().set("/x-new", json!({"deep": [1.5, null]}));
    let (bundle, shim) = bed.wrapped("c1", &spec, KEEPING);
    let config = bundle.path.join("config.json");
    let before = (fs::read(&config).unwrap(), modified(&config));
    shim.task.create(&bundle.create()).unwrap();
    assert_eq!(fs::read(bed.path("config")).unwrap(), before.0);
    shim.task.start("c1", "").unwrap();
    shim.task.pause("c1").unwrap();
    shim.task.resume("c1").unwrap();
    shim.task
        .update("c1", &json!({"pids": {"limit": 77}}))
        .unwrap();
    bed.end(&bundle, &shim);
    assert_eq!((fs::read(&config).unwrap(), modified(&config)), before);
    bed.remove(&bundle);
    bed.assert_clean();
}

fn modified(path: &std::path::Path) -> (i64, i64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(path).unwrap();
    (meta.mtime(), meta.mtime_nsec(), meta.ino())
}

#[test]
fn selinux_and_apparmor_settings_reach_the_runtime_as_they_are() {
    let bed = Bed::new();
    let label = "system_u:system_r:container_t:s0:c1,c2";
    let spec = Spec::sleeper()
        .set("/process/selinuxLabel", json!(label))
        .set("/process/apparmorProfile", json!("wherry-test-profile"))
        .set("/linux/mountLabel", json!(label));
    // The kernel here may know neither: what counts is what the runtime is given.
    let script =
        format!("[ $cmd = create ] && {{ cp config.json $DIR/config; exit 1; }}; {KEEPING}");
    let (bundle, shim) = bed.wrapped("c1", &spec, &script);
    shim.task.create(&bundle.create()).unwrap_err();
    let given: serde_json::Value =
        serde_json::from_slice(&fs::read(bed.path("config")).unwrap()).unwrap();
    assert_eq!(given["process"]["selinuxLabel"], json!(label));
    assert_eq!(
        given["process"]["apparmorProfile"],
        json!("wherry-test-profile")
    );
    assert_eq!(given["linux"]["mountLabel"], json!(label));
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}
