//! The command line, the configuration and the start of the real binary, beside Debian's
//! containerd where both must say the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test ends where something is not as it must be"
)]

mod common;

use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Bed, Ran, Shims, eventually, run};

const WHERRYD: &str = env!("CARGO_BIN_EXE_wherryd");
const OLD: &str = include_str!("../src/config/testdata/1.2.4.toml");

fn wherryd(arguments: &[&str]) -> Ran {
    run(Command::new(WHERRYD).args(arguments))
}

/// What containerd makes of a file.
fn containerd_dump(file: &Path) -> toml::Table {
    let dump = run(Command::new("containerd").args(["--config", text(file), "config", "dump"]));
    toml::from_str(&dump.ok()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn containerd_reads_every_file_that_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.toml");
    fs::write(&old, OLD).unwrap();
    let file = dir.path().join("new.toml");
    for arguments in [
        &["config", "default"][..],
        &["--config", text(&old), "config", "dump"],
        &["--config", text(&old), "config", "migrate"],
    ] {
        fs::write(&file, wherryd(arguments).ok()).unwrap();
        let theirs = containerd_dump(&file);
        assert_eq!(theirs["version"].as_integer(), Some(2), "{arguments:?}");
        let cri = &theirs["plugins"]["io.containerd.grpc.v1.cri"]["containerd"];
        let name = cri["default_runtime_name"].as_str().unwrap();
        let runtime = &cri["runtimes"][name];
        assert_eq!(
            runtime["runtime_type"].as_str(),
            Some("io.containerd.runc.v2")
        );
    }
    // What the old file says of everything else is what containerd itself makes of it.
    let (ours, theirs) = (containerd_dump(&file), containerd_dump(&old));
    for table in ["grpc", "debug", "metrics", "cgroup"] {
        assert_eq!(ours[table], theirs[table]);
    }
    for plugin in [
        "io.containerd.gc.v1.scheduler",
        "io.containerd.internal.v1.restart",
    ] {
        assert_eq!(ours["plugins"][plugin], theirs["plugins"][plugin]);
    }
    let registry =
        |of: &toml::Table| of["plugins"]["io.containerd.grpc.v1.cri"]["registry"].clone();
    assert_eq!(registry(&ours), registry(&theirs));
}

#[test]
fn what_containerd_dumps_loads_and_means_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let dump = run(Command::new("containerd").args(["config", "default"])).ok();
    fs::write(&file, &dump).unwrap();
    let check = wherryd(&["--config", text(&file), "config", "check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(!check.stdout.contains("no such key"), "{}", check.stdout);
    let ours: toml::Table =
        toml::from_str(&wherryd(&["-c", text(&file), "config", "dump"]).ok()).unwrap();
    let theirs: toml::Table = toml::from_str(&dump).unwrap();
    for table in ["grpc", "gc", "ttrpc"] {
        for (key, value) in ours
            .get(table)
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
        {
            assert_eq!(theirs[table].get(key), Some(value), "{table}.{key}");
        }
    }
    for (key, value) in ours["timeouts"].as_table().unwrap() {
        assert_eq!(theirs["timeouts"].get(key), Some(value), "{key}");
    }
}

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
fn check_names_each_problem_with_file_line_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let check = |contents: &str| {
        fs::write(&file, contents).unwrap();
        wherryd(&["--config", text(&file), "config", "check"])
    };
    let quiet = check("version = 2\n");
    assert_eq!((quiet.code, quiet.stdout.as_str()), (Some(0), ""));
    let warned =
        check("version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsystemd_cgroup = true\n");
    assert_eq!(warned.code, Some(0), "{warned:?}");
    let line = format!("{}:3: plugins.", text(&file));
    assert!(warned.stdout.starts_with(&line), "{}", warned.stdout);
    assert!(
        warned.stdout.contains("; write SystemdCgroup"),
        "{}",
        warned.stdout
    );
    let broken = check("version = 2\noom_score = 'x'\n[grpc]\nuid = 'y'\n");
    assert_eq!((broken.code, broken.stderr.as_str()), (Some(1), ""));
    let lines: Vec<&str> = broken.stdout.lines().collect();
    assert!(
        lines[0].contains(":2: oom_score") && lines[1].contains(":4: grpc.uid"),
        "{lines:?}"
    );
    // And the daemon does not start on it.
    let started = wherryd(&["--config", text(&file), "--root", "/nonexistent/r"]);
    assert_eq!(started.code, Some(1));
    assert!(
        started.stderr.contains(":2: oom_score"),
        "{}",
        started.stderr
    );
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
    let mut daemon = common::background(&mut command, &dir.path().join("out"));
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

fn socket(name: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(name).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket
}

#[test]
fn systemd_is_told_that_it_is_ready_and_that_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let name = format!("wherryd-test-{}", std::process::id());
    let places = [
        (
            text(&path).to_owned(),
            SocketAddr::from_pathname(&path).unwrap(),
        ),
        (
            format!("@{name}"),
            SocketAddr::from_abstract_name(&name).unwrap(),
        ),
    ];
    for (variable, address) in places {
        let socket = socket(&address);
        let received = || {
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let base = dir.path().join("base");
        let mut command = Command::new(WHERRYD);
        command
            .arg("--base")
            .arg(&base)
            .env("NOTIFY_SOCKET", &variable);
        let mut daemon = command.stdin(Stdio::null()).spawn().unwrap();
        assert_eq!(received(), "READY=1");
        // What is ready answers.
        let socket = base.join("wherryd.sock");
        run(Command::new("ctr").args(["-a", text(&socket), "version"])).ok();
        run(Command::new("kill").arg(daemon.id().to_string())).ok();
        assert_eq!(received(), "STOPPING=1");
        assert!(daemon.wait().unwrap().success());
    }
}

#[test]
fn the_unit_file_is_one() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: there is no systemd-analyze here");
        return;
    }
    let unit = include_str!("../../dist/wherryd.service");
    for line in [
        "Type=notify",
        "Delegate=yes",
        "KillMode=process",
        "LimitNOFILE=infinity",
    ] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wherryd.service");
    let program = Path::new(WHERRYD).parent().unwrap();
    fs::write(&file, unit.replace("@BINDIR@", text(program))).unwrap();
    let verified = run(Command::new("systemd-analyze").arg("verify").arg(&file));
    let about_us = |line: &&str| line.contains("wherryd");
    let said: Vec<&str> = verified.stderr.lines().filter(about_us).collect();
    assert_eq!(said, Vec::<&str>::new());
}

#[test]
fn sockets_cgroup_temp_and_log_are_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let cgroup = format!("/wherryd-test-{}", std::process::id());
    let (temp, ttrpc) = (dir.path().join("temp"), dir.path().join("other.ttrpc"));
    let config = format!(
        "version = 2\ntemp = '{}'\noom_score = 7\n[grpc]\ngid = 1\n[ttrpc]\naddress = '{}'\n\
         gid = 2\n[cgroup]\npath = '{cgroup}'\n[debug]\nformat = 'json'\n",
        text(&temp),
        text(&ttrpc)
    );
    let bed = Bed::with_config(Shims::Ours, &config);
    let group = |path: &Path| std::os::unix::fs::MetadataExt::gid(&fs::metadata(path).unwrap());
    assert_eq!((group(&bed.address()), group(&ttrpc)), (1, 2));
    assert!(temp.is_dir());
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", bed.pid())).unwrap();
    assert_eq!(of("oom_score_adj").trim(), "7");
    let joined = of("cgroup")
        .lines()
        .filter(|line| line.ends_with(&cgroup))
        .count();
    assert!(joined >= 1, "{}", of("cgroup"));
    for line in bed.log().lines() {
        assert!(
            line.starts_with('{') && line.contains("\"level\""),
            "{line}"
        );
    }
    // Shims publish where they are told to, and have the daemon's folder of temporary files.
    bed.run_detached("c");
    let (pid, _) = bed.task("c").unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap();
    let environment = fs::read(format!("/proc/{}/environ", shim.trim())).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(
        environment.contains(&format!("TTRPC_ADDRESS={}\0", text(&ttrpc))),
        "{environment}"
    );
    assert!(
        environment.contains(&format!("TMPDIR={}\0", text(&temp))),
        "{environment}"
    );
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "c"]).ok();
    bed.wait_status("c", "STOPPED");
    drop(bed);
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(controller.path().join(&cgroup[1..]));
    }
}

#[test]
fn plugins_that_are_disabled_are_not_served_and_those_required_must_be() {
    let bed = Bed::with_config(
        Shims::Ours,
        "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.leases']\n",
    );
    let refused = bed.ctr(&["leases", "ls"]);
    assert!(refused.stderr.contains("not implemented"), "{refused:?}");
    bed.ctr(&["c", "ls"]).ok();
    let file = bed.dir.path().join("c.toml");
    fs::write(
        &file,
        "version = 2\nrequired_plugins = ['io.containerd.grpc.v1.cri']\n",
    )
    .unwrap();
    let base = bed.dir.path().join("base");
    let refused = wherryd(&["--base", text(&base), "-c", text(&file)]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("io.containerd.grpc.v1.cri"),
        "{refused:?}"
    );
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
        let mut watcher = common::background(bed.ctr_command().arg("events"), &out);
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

#[test]
fn snapshots_and_limits_of_shims_are_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("snapshots");
    let config = format!(
        "version = 2\n[plugins.'io.containerd.snapshotter.v1.native']\nroot_path = '{}'\n\
         [timeouts]\n'io.containerd.timeout.shim.load' = '20s'\n",
        text(&own)
    );
    let mut bed = Bed::with_config(Shims::Ours, &config);
    bed.ctr(&["snapshots", "--snapshotter", "native", "prepare", "s", ""])
        .ok();
    assert!(own.join("snapshots").is_dir());
    bed.ctr(&["snapshots", "--snapshotter", "native", "rm", "s"])
        .ok();

    // A shim that answers late is waited for as long as it may take.
    bed.run_detached("late");
    let task = bed.task("late").unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", task.0)).unwrap();
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim();
    let signal = |name: &str| run(Command::new("kill").args([name, shim])).ok();
    signal("-STOP");
    bed.kill();
    bed.start();
    let asked = std::time::Instant::now();
    // Twice what a shim has where the file says nothing.
    eventually("4 s have passed", || asked.elapsed().as_secs() >= 4);
    assert!(
        !bed.log().contains("/late: "),
        "it was not waited for: {}",
        bed.log()
    );
    signal("-CONT");
    eventually("it is found", || bed.log().contains("/late: shim found"));
    bed.wait_status("late", "RUNNING");
}
