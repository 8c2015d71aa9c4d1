//! Files: written, read, checked and dumped.

use std::fs;
use std::process::Command;

use crate::common::run;
use crate::{OLD, containerd_dump, text, wherryd};

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
