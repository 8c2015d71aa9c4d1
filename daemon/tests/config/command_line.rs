//! Flags, the version, and the commands that shims and hooks call.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::{Bed, Shims, background, eventually, run};
use crate::{WHERRYD, text};

#[test]
fn flags_go_before_the_file_and_the_file_before_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(&file, "version = 2\nroot = '/file'\nstate = '/file2'\n").unwrap();
    for program in [WHERRYD, "containerd"] {
        let dump = run(Command::new(program).args(["-c", text(&file), "config", "dump"])).ok();
        let dump: toml::Table = toml::from_str(&dump).unwrap();
        assert_eq!(dump["root"].as_str(), Some("/file"), "{program}");
        assert_eq!(dump["state"].as_str(), Some("/file2"), "{program}");
    }
    let flags = [
        "-c",
        text(&file),
        "--root=/flag",
        "-a",
        "/a",
        "-log-level",
        "debug",
    ];
    let dump = run(Command::new(WHERRYD).args(flags).args(["config", "dump"])).ok();
    let dump: toml::Table = toml::from_str(&dump).unwrap();
    assert_eq!(dump["root"].as_str(), Some("/flag"));
    assert_eq!(dump["state"].as_str(), Some("/file2"));
    assert_eq!(dump["grpc"]["address"].as_str(), Some("/a"));
    assert_eq!(dump["debug"]["level"].as_str(), Some("debug"));
}

#[test]
fn the_version_is_told_in_the_words_of_containerd() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("containerd");
    std::os::unix::fs::symlink(WHERRYD, &link).unwrap();
    let words = |program: &str, flag: &str| -> Vec<String> {
        let said = run(Command::new(program).arg(flag)).ok();
        said.split_whitespace().map(str::to_owned).collect()
    };
    for flag in ["-v", "--version"] {
        let (theirs, ours) = (words("containerd", flag), words(text(&link), flag));
        assert_eq!(ours.len(), theirs.len());
        assert_eq!(ours[0], theirs[0]);
        assert!(ours[2].starts_with("1.7."), "{ours:?}");
        assert_eq!(words(WHERRYD, flag)[0], "wherryd");
    }
}

#[test]
fn an_embedded_daemon_has_everything_below_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("deep/base");
    let mut command = Command::new(WHERRYD);
    command
        .current_dir(dir.path())
        .args(["--base", "deep/base"]);
    let mut daemon = background(&mut command, &dir.path().join("out"));
    let socket = base.join("wherryd.sock");
    eventually("it serves", || {
        run(Command::new("ctr").args(["-a", text(&socket), "version"])).code == Some(0)
    });
    let mut names: Vec<String> = fs::read_dir(&base)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "root",
        "state",
        "wherryd.log",
        "wherryd.sock",
        "wherryd.sock.ttrpc",
    ];
    assert_eq!(names, expected);
    let log = fs::read_to_string(base.join("wherryd.log")).unwrap();
    assert!(log.contains("serving at"), "{log}");
    let mode = |name: &str| {
        let meta = fs::metadata(base.join(name)).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777
    };
    for name in ["", "root", "state"] {
        assert_eq!(mode(name) & !0o711, 0, "{name}");
    }
    for name in ["wherryd.sock", "wherryd.sock.ttrpc"] {
        assert_eq!(mode(name), 0o660, "{name}");
    }
    // A second one is told so, and does no harm.
    let second = run(Command::new(WHERRYD).env("WHERRY_BASE", &base));
    assert_eq!(second.code, Some(1), "{second:?}");
    run(Command::new("ctr").args(["-a", text(&socket), "version"])).ok();
    daemon.stop();
}

#[test]
fn events_are_published_by_either_binary_to_either_daemon() {
    let mut bed = Bed::new(Shims::Ours);
    let publish = |bed: &Bed, program: &str, topic: &str| {
        let mut command = Command::new(program);
        command.arg("--address").arg(bed.address());
        command.args(["publish", "--topic", topic, "--namespace", &bed.namespace]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // An Any of TaskOOM{container_id: "c"}.
        let mut any = vec![0x0a, 25];
        any.extend_from_slice(b"containerd.events.TaskOOM");
        any.extend_from_slice(&[0x12, 3, 0x0a, 1, b'c']);
        child.stdin.take().unwrap().write_all(&any).unwrap();
        assert!(child.wait().unwrap().success(), "{program}");
    };
    let arrives = |bed: &Bed| {
        let out = bed.dir.path().join("events");
        let mut watcher = background(bed.ctr_command().arg("events"), &out);
        let seen = || fs::read_to_string(&out).unwrap_or_default();
        for (program, topic) in [(WHERRYD, "/tasks/oom-a"), ("containerd", "/tasks/oom-b")] {
            eventually("the event arrives", || {
                // The watcher may have come late.
                publish(bed, program, topic);
                seen().contains(topic)
            });
            let line = seen()
                .lines()
                .find(|line| line.contains(topic))
                .unwrap()
                .to_owned();
            assert!(line.contains(r#"{"container_id":"c"}"#), "{line}");
        }
        watcher.stop();
    };
    arrives(&bed);
    bed.kill();
    let mut containerd = bed.containerd();
    arrives(&bed);
    containerd.stop();
}

#[test]
fn a_hook_gets_what_the_runtime_tells() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("config.json"),
        r#"{"root":{"path":"rootfs"}}"#,
    )
    .unwrap();
    let state = format!(
        r#"{{"ociVersion":"1.0.2","id":"c","status":"creating","pid":42,"bundle":"{}",
            "annotations":{{"k":"v"}}}}"#,
        text(dir.path())
    );
    let hooked = |program: &str| {
        let mut command = Command::new(program);
        command
            .args(["oci-hook", "--", "/bin/sh", "-c"])
            .arg("echo {{id}} {{pid}} {{rootfs}} {{annotation \"k\"}} $FROM")
            .env("FROM", "{{bundle}}")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(state.as_bytes())
            .unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let ours = hooked(WHERRYD);
    assert!(
        ours.contains("c 42 ") && ours.contains("/rootfs v "),
        "{ours}"
    );
    assert_eq!(ours, hooked("containerd"));
}
