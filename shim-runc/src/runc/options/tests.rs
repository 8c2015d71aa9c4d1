//! Tests of the options of the runc shims.

use super::*;

fn proto() -> oci::Options {
    oci::Options {
        no_pivot_root: true,
        binary_name: "crun".into(),
        root: "/run/x".into(),
        io_uid: 7,
        systemd_cgroup: true,
        task_api_version: 3,
        ..Default::default()
    }
}

fn inline(url: &str, value: &[u8]) -> RuncOptions {
    match decode(url, value).unwrap() {
        Source::Inline(o) => *o,
        Source::File(p) => panic!("unexpected file {}", p.display()),
    }
}

#[test]
fn protobuf_options_under_every_prefix() {
    let bytes = proto().write_to_bytes().unwrap();
    for prefix in ["", "types.containerd.io/", "type.googleapis.com/", "/"] {
        let o = inline(&format!("{prefix}{RUNC_OPTIONS}"), &bytes);
        assert!(o.no_pivot_root && o.systemd_cgroup && !o.no_new_keyring);
        assert_eq!(
            (o.binary_name.as_str(), o.root.as_str(), o.io_uid),
            ("crun", "/run/x", 7)
        );
    }
    assert_eq!(inline("", b""), RuncOptions::default());
}

#[test]
fn criu_path_of_older_daemons_is_kept() {
    let mut bytes = proto().write_to_bytes().unwrap();
    bytes.extend_from_slice(b"\x42\x09/opt/criu");
    assert_eq!(inline(RUNC_OPTIONS, &bytes).criu_path, "/opt/criu");
}

#[test]
fn json_value_is_read_and_written_as_go_writes_it() {
    let json = br#"{"binary_name":"crun","io_gid":5,"systemd_cgroup":true}"#;
    let o = inline(RUNC_OPTIONS, json);
    assert_eq!(
        (o.binary_name.as_str(), o.io_gid, o.systemd_cgroup),
        ("crun", 5, true)
    );
    // The bundle's options.json: only what is set, in snake case.
    let written = serde_json::to_string(&o).unwrap();
    assert_eq!(
        written,
        r#"{"io_gid":5,"binary_name":"crun","systemd_cgroup":true}"#
    );
    assert_eq!(
        serde_json::to_string(&RuncOptions::default()).unwrap(),
        "{}"
    );
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend_from_slice(bytes);
    out
}

#[test]
fn toml_body_from_cri() {
    let body = b"binaryname = \"crun\"\nSystemdCgroup = true\nIoUid = 3\nTypeUrl = \"t\"\n";
    let value = field(3, body);
    for url in [
        "runtimeoptions.v1.Options",
        "x/cri.runtimeoptions.v1.Options",
    ] {
        let o = inline(url, &value);
        assert_eq!(
            (o.binary_name.as_str(), o.systemd_cgroup, o.io_uid),
            ("crun", true, 3)
        );
    }
}

#[test]
fn toml_file_is_read_only_without_a_body() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "Root = \"/r\"").unwrap();
    let name = path.to_str().unwrap().as_bytes();
    assert_eq!(load(GENERIC_OPTIONS, &field(2, name)).unwrap().root, "/r");
    let both = [field(2, name), field(3, b"Root = \"/b\"")].concat();
    assert_eq!(load(GENERIC_OPTIONS, &both).unwrap().root, "/b");
    let missing = dir.path().join("none");
    let err = read_file(&missing).unwrap_err().to_string();
    assert!(err.contains(missing.to_str().unwrap()), "{err}");
    let err = read_file(dir.path()).unwrap_err().to_string();
    assert!(err.contains("not a regular file"), "{err}");
}

#[test]
fn bad_options_are_refused_by_name() {
    let foreign = decode("io.containerd.kata.v1.Options", b"").unwrap_err();
    assert!(
        foreign
            .to_string()
            .contains("io.containerd.kata.v1.Options")
    );
    assert!(matches!(foreign, OptionsError::ForeignType(_)));
    for (url, value) in [
        (RUNC_OPTIONS, b"\xff\xff\xff".to_vec()),
        (RUNC_OPTIONS, b"{\"io_uid\":\"x\"}".to_vec()),
        (GENERIC_OPTIONS, field(3, b"BinaryName = 7")),
        (GENERIC_OPTIONS, field(3, b"IoUid = -1")),
        (GENERIC_OPTIONS, field(3, b"= [")),
        (GENERIC_OPTIONS, b"\x1a\xff".to_vec()),
        (GENERIC_OPTIONS, b"\x0f".to_vec()),
    ] {
        let err = decode(url, &value).unwrap_err();
        assert!(
            matches!(err, OptionsError::Malformed { .. }),
            "{url} {value:?}: {err}"
        );
    }
    // A body of another runtime's type is as foreign as the message itself.
    let err = decode(GENERIC_OPTIONS, &field(1, b"some.other.Options")).unwrap_err();
    assert!(matches!(err, OptionsError::ForeignType(_)), "{err}");
}

#[test]
fn checkpoint_options() {
    let message = oci::CheckpointOptions {
        exit: true,
        file_locks: true,
        empty_namespaces: vec!["network".into()],
        work_path: "/w".into(),
        ..Default::default()
    };
    let bytes = message.write_to_bytes().unwrap();
    let o = decode_checkpoint(CHECKPOINT_OPTIONS, &bytes).unwrap();
    assert!(o.exit && o.file_locks && !o.open_tcp);
    assert_eq!(
        (o.empty_namespaces, o.work_path.as_str()),
        (vec!["network".to_owned()], "/w")
    );
    assert!(decode_checkpoint(RUNC_OPTIONS, b"").is_err());
}
