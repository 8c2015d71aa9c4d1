//! `start`, the socket, `delete` before anything exists, `-info` and `-v`: what a daemon meets
//! before its first call.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "the harness runs the shim's other modes itself"
)]

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use wherry_integration::bundle::options_any;
use wherry_integration::client::{TASK_V2, TASK_V3};
use wherry_integration::prelude::*;

fn done(bed: &Bed, bundle: &Bundle, shim: &Shim) {
    bed.shut(bundle, shim);
    bed.remove(bundle);
    bed.assert_clean();
}

#[test]
fn a_legacy_daemon_gets_the_bare_address_with_and_without_options() {
    let bed = Bed::new();
    for (id, with_options) in [("c1", false), ("c2", true)] {
        let bundle = bed.bundle(id, &Spec::sleeper());
        let mut request = bed.start_request(&bundle);
        request.protocol = if with_options {
            Protocol::Options(options_any(&bundle.options))
        } else {
            Protocol::Empty
        };
        let shim = bed.start_with(&request);
        let expected = format!("unix://{}", bed.socket_of(id).display());
        assert_eq!(shim.reply, Reply::Bare(expected));
        bed.shut(&bundle, &shim);
        bed.remove(&bundle);
    }
    bed.assert_clean();
}

#[test]
fn nothing_but_the_reply_is_printed() {
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let mut request = bed.start_request(&bundle);
    request.debug = true;
    let shim = bed.start_with(&request);
    let Reply::Bare(address) = &shim.reply else {
        panic!("{:?}", shim.reply)
    };
    assert_eq!(
        *address,
        format!("unix://{}", bed.socket_of("c1").display())
    );
    done(&bed, &bundle, &shim);
}

#[test]
fn a_bootstrap_daemon_gets_the_protobuf_result() {
    known_difference!("go", "BootstrapParams came with the 2.3 shim");
    known_difference!("v1", "a daemon sends the v1 flavour plain options");
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let mut request = bed.start_request(&bundle);
    request.protocol = Protocol::Bootstrap {
        options: Some(options_any(&bundle.options)),
        socket_dir: None,
    };
    let outcome = request.run();
    assert_eq!(
        outcome.code,
        Some(0),
        "{}",
        String::from_utf8_lossy(&outcome.output)
    );
    let last = outcome.output.last().unwrap();
    assert!(
        !last.is_ascii_whitespace(),
        "daemons trim the reply before they decode it"
    );
    let address = format!("unix://{}", bed.socket_of("c1").display());
    let reply = Reply::parse(&outcome.output);
    let expected = Reply::Protobuf {
        version: 3,
        address,
        protocol: "ttrpc".to_owned(),
    };
    assert_eq!(reply, expected);
    let task = TaskClient::connect(&bed.socket_of("c1"), TASK_V3).unwrap();
    task.create(&bundle.create()).unwrap();
    task.delete("c1", "").unwrap();
    let _ = task.shutdown("c1");
    eventually(SHORT, "the shim ends", || bed.processes().is_empty());
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_socket_dir_is_used_and_linked_in_the_bundle() {
    known_difference!("go", "socket_dir came with the 2.3 shim");
    known_difference!("v1", "a daemon sends the v1 flavour plain options");
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let dir = bed.path("s");
    let mut request = bed.start_request(&bundle);
    request.protocol = Protocol::Bootstrap {
        options: None,
        socket_dir: Some(dir.clone()),
    };
    let shim = bed.start_with(&request);
    assert!(shim.socket.starts_with(&dir), "{}", shim.socket.display());
    assert_eq!(shim.socket.file_name(), bed.socket_of("c1").file_name());
    assert_eq!(std::fs::read_link(bundle.path.join("s")).unwrap(), dir);
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    bed.shut(&bundle, &shim);
    assert!(!shim.socket.exists());
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn an_any_of_options_is_never_taken_for_bootstrap_params() {
    // Fields 1 and 2 of both are strings or bytes: only the ids tell them apart.
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let mut request = bed.start_request(&bundle);
    let mut any = options_any(&bundle.options);
    any.value = b"not-the-namespace".to_vec();
    any.type_url = "c1".to_owned();
    request.protocol = Protocol::Options(any);
    let outcome = request.run();
    // Go refuses the odd type, ours may take it for no options at all; neither answers protobuf.
    if outcome.code == Some(0) {
        assert!(matches!(Reply::parse(&outcome.output), Reply::Bare(_)));
    }
}

#[test]
fn both_task_versions_are_served_on_the_one_socket() {
    known_difference!(
        "go",
        "the 1.x shims serve task v2 only, the 2.x ones v3 only"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    for service in [TASK_V2, TASK_V3] {
        shim.task.service(service).connect_task("c1").unwrap();
    }
    done(&bed, &bundle, &shim);
}

#[test]
fn the_address_file_names_the_socket() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let address = std::fs::read_to_string(bundle.path.join("address")).unwrap();
    assert_eq!(address, format!("unix://{}", shim.socket.display()));
    done(&bed, &bundle, &shim);
}

#[test]
fn the_socket_is_closed_to_others() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let meta = std::fs::metadata(&shim.socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    done(&bed, &bundle, &shim);
}

#[test]
fn the_process_is_named_and_flagged_as_operators_grep_for_it() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    assert_eq!(host::comm(shim.pid), "containerd-shim");
    let cmdline = host::cmdline(shim.pid);
    assert!(cmdline[0].contains("containerd-shim-runc-v"), "{cmdline:?}");
    let after = |flag: &str| {
        let at = cmdline.iter().position(|a| a == flag);
        cmdline[at.unwrap_or_else(|| panic!("no {flag} in {cmdline:?}")) + 1].clone()
    };
    assert_eq!(after("-namespace"), bed.namespace());
    assert_eq!(after("-id"), "c1");
    assert_eq!(
        after("-address"),
        bed.path("containerd.sock").display().to_string()
    );
    done(&bed, &bundle, &shim);
}

#[test]
fn the_shim_is_a_group_leader_and_holds_neither_output_of_start() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", shim.pid)).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!(fields[2], shim.pid.to_string(), "process group");
    let descriptors = host::descriptors(shim.pid);
    let target = |n: i32| {
        descriptors
            .iter()
            .find(|(fd, _)| *fd == n)
            .map(|(_, t)| t.clone())
    };
    assert_eq!(target(0).as_deref(), Some("/dev/null"));
    assert_eq!(target(1).as_deref(), Some("/dev/null"));
    let log = bundle.path.join("log").display().to_string();
    assert_eq!(
        target(2).as_deref(),
        Some(log.as_str()),
        "standard error is the log"
    );
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", shim.pid)).unwrap();
    assert_eq!(cwd, bundle.path);
    done(&bed, &bundle, &shim);
}

#[test]
fn the_oom_score_is_the_daemons_plus_one() {
    let bed = Bed::new();
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", shim.pid)).unwrap();
    assert_eq!(score.trim(), (own + 1).min(1000).to_string());
    done(&bed, &bundle, &shim);
}

#[test]
fn a_shim_cgroup_is_joined_in_every_hierarchy() {
    let bed = Bed::new();
    let mut bundle = bed.bundle("c1", &Spec::sleeper());
    bundle.options.shim_cgroup = bed.cgroup("shims");
    host::make_cgroup(&bed.cgroup("shims"));
    let shim = bed.start(&bundle);
    let lines = std::fs::read_to_string(format!("/proc/{}/cgroup", shim.pid)).unwrap();
    if target::cgroup_v2() {
        assert!(
            lines.contains(&format!("0::{}", bed.cgroup("shims"))),
            "{lines}"
        );
    } else {
        for controller in ["memory", "pids", "cpu"] {
            let line = lines
                .lines()
                .find(|l| l.split(':').nth(1) == Some(controller));
            assert!(
                line.is_some_and(|l| l.ends_with(&bed.cgroup("shims"))),
                "{lines}"
            );
        }
    }
    bed.shut(&bundle, &shim);
    eventually(SHORT, "the shims' cgroup is empty", || {
        host::remove_empty_cgroup(&bed.cgroup("shims"));
        host::cgroups(&bed.cgroup("shims")).is_empty()
    });
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_group_annotation_joins_the_running_shim() {
    known_difference!("v1", "the v1 flavour has one container per shim");
    for key in [
        "io.containerd.runc.v2.group",
        "io.kubernetes.cri.sandbox-id",
    ] {
        let bed = Bed::new();
        let first = bed.bundle("c1", &Spec::sleeper().annotation(key, "pod"));
        let second = bed.bundle("c2", &Spec::sleeper().annotation(key, "pod"));
        bed.note_group("pod");
        let shim = bed.start(&first);
        assert_eq!(shim.socket, bed.socket_of("pod"));
        let joined = bed.start(&second);
        assert_eq!(joined.socket, shim.socket, "{key}");
        assert_eq!(joined.pid, shim.pid, "one process for both");
        let address = std::fs::read_to_string(second.path.join("address")).unwrap();
        assert_eq!(
            address,
            format!("unix://{}", shim.socket.display()),
            "daemons up to 1.7 read it"
        );
        for bundle in [&first, &second] {
            shim.task.create(&bundle.create()).unwrap();
            shim.task.start(&bundle.id, "").unwrap();
        }
        shim.task.kill("c2", "", 9, false).unwrap();
        shim.task.wait("c2", "").unwrap();
        shim.task.delete("c2", "").unwrap();
        shim.task.shutdown("c2").unwrap();
        assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
        bed.remove(&second);
        // The shim's working directory is the first bundle; the second's removal left it alone.
        bed.end(&first, &shim);
        bed.remove(&first);
        bed.assert_clean();
    }
}

#[test]
fn the_runc_group_goes_before_the_sandbox_id() {
    known_difference!("v1", "the v1 flavour has one container per shim");
    let bed = Bed::new();
    let spec = Spec::sleeper()
        .annotation("io.kubernetes.cri.sandbox-id", "sandbox")
        .annotation("io.containerd.runc.v2.group", "group");
    bed.note_group("group");
    let (bundle, shim) = bed.shim("c1", &spec);
    assert_eq!(shim.socket, bed.socket_of("group"));
    done(&bed, &bundle, &shim);
}

#[test]
fn the_v1_flavour_writes_its_pid_and_ignores_groups() {
    let bed = Bed::new();
    let spec = Spec::sleeper().annotation("io.containerd.runc.v2.group", "group");
    let bundle = bed.bundle("c1", &spec);
    let mut request = bed.start_request(&bundle);
    request.binary = target::shim_binary_v1();
    skip_unless!(
        request.binary.exists(),
        "there is no v1 flavour beside the shim"
    );
    let shim = bed.start_with(&request);
    assert_eq!(shim.socket, bed.socket_of("c1"));
    let pid = std::fs::read_to_string(bundle.path.join("shim.pid")).unwrap();
    assert_eq!(pid, shim.pid.to_string());
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    // Unconditional: it ends although the container lives, which the delete action then kills.
    let _ = shim.task.shutdown("c1");
    shim.wait_gone();
    known_difference!(
        "go",
        "Go's v1 delete stops at a socket that its shim has removed itself"
    );
    wherry_integration::delete::run(&request).response();
    eventually(SHORT, "the container is gone", || {
        bed.processes().is_empty()
    });
    bed.discard(&bundle);
    bed.assert_clean();
}

#[test]
fn a_stale_socket_is_replaced() {
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    std::fs::create_dir_all(bed.socket_of("c1").parent().unwrap()).unwrap();
    drop(UnixListener::bind(bed.socket_of("c1")).unwrap());
    assert!(bed.socket_of("c1").exists());
    let shim = bed.start(&bundle);
    assert_eq!(shim.socket, bed.socket_of("c1"));
    done(&bed, &bundle, &shim);
}

#[test]
fn a_second_start_of_a_running_shim_returns_its_address() {
    known_difference!("v1", "the v1 flavour always unlinks the socket");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let again = bed.start(&bundle);
    assert_eq!(again.reply, shim.reply);
    assert_eq!(again.pid, shim.pid);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_start_without_a_bundle_says_so_and_leaves_nothing() {
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    std::fs::remove_file(bundle.path.join("config.json")).unwrap();
    let outcome = bed.start_request(&bundle).run();
    let text = String::from_utf8_lossy(&outcome.output).into_owned();
    if target::under_test_is_v1() && target::flavor() == target::Flavor::Go {
        return;
    }
    assert_eq!(outcome.code, Some(1), "{text}");
    assert!(text.contains("config.json"), "{text}");
    assert!(bed.processes().is_empty());
    assert!(!bed.socket_of("c1").exists());
}

#[test]
fn an_empty_namespace_is_an_error() {
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let mut request = bed.start_request(&bundle);
    request.namespace = String::new();
    let outcome = request.run();
    assert_eq!(outcome.code, Some(1));
    assert!(String::from_utf8_lossy(&outcome.output).contains("namespace"));
}

#[test]
fn delete_of_a_container_that_never_ran_reports_137_and_leaves_nothing() {
    known_difference!(
        "go",
        "Go 1.x fails when the bundle has no `runtime` file; 2.x does not"
    );
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let response = bed.delete(&bundle).response();
    assert_eq!(response.exit_status, 137);
    assert_eq!(response.pid, 0);
    assert!(response.exited_at.seconds > 1_600_000_000, "now");
}

#[test]
fn delete_after_the_shim_was_killed_leaves_nothing() {
    known_difference!("go-v2", "Go's v2 leaves the dead shim's socket (row 24)");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let pid = shim.task.state("c1", "").unwrap().pid;
    shim.kill();
    assert!(
        host::alive(i32::try_from(pid).unwrap()),
        "the container outlives its shim"
    );
    let response = bed.delete(&bundle).response();
    assert_eq!(response.exit_status, 137);
    assert_eq!(response.pid, pid, "Docker needs the pid");
    assert!(!host::alive(i32::try_from(pid).unwrap()));
    bed.discard(&bundle);
    bed.assert_clean();
}

#[test]
fn version_is_told_under_the_programs_name() {
    let output = Command::new(target::shim_binary())
        .arg("-v")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("containerd-shim-runc-v"), "{text}");
    assert!(text.contains("Version:"), "{text}");
    assert!(text.contains("Revision:"), "{text}");
}

#[test]
fn info_names_the_runtime_and_echoes_the_options() {
    known_difference!("go", "-info came with the 2.0 shim");
    use containerd_shim_protos::types::introspection::RuntimeInfo;
    use protobuf::Message as _;
    use std::io::Write as _;
    let bed = Bed::new();
    let options = bed.options();
    let mut child = Command::new(target::shim_binary())
        .arg("-info")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes = options_any(&options).write_to_bytes().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
    assert!(
        info.name.starts_with("io.containerd.runc.v"),
        "{}",
        info.name
    );
    assert!(!info.version.version.is_empty());
    assert_eq!(info.options.value, options_any(&options).value);
}

#[test]
fn sigterm_ends_the_shim_and_the_container_lives_on_until_delete() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let pid = i32::try_from(shim.task.state("c1", "").unwrap().pid).unwrap();
    host::signal(shim.pid, nix::sys::signal::Signal::SIGTERM);
    shim.wait_gone();
    assert!(host::alive(pid));
    known_difference!(
        "go-v1",
        "its delete stops at the socket that the shim has removed itself"
    );
    let outcome = bed.delete(&bundle);
    if target::flavor() != target::Flavor::Go {
        assert_eq!(outcome.response().exit_status, 137);
    }
    eventually(SHORT, "the container is gone", || !host::alive(pid));
    bed.discard(&bundle);
    bed.assert_clean();
}

#[test]
fn sigusr1_writes_the_state_to_the_log_and_does_not_kill() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    host::signal(shim.pid, nix::sys::signal::Signal::SIGUSR1);
    let text = if target::flavor() == target::Flavor::Go {
        "goroutine"
    } else {
        "c1"
    };
    eventually(SHORT, "the state is in the log", || {
        shim.log().contains(text)
    });
    assert!(shim.alive());
    shim.task.state("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn the_shim_survives_its_bundle_and_its_log_reader() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    std::fs::remove_file(bundle.path.join("log")).unwrap();
    std::fs::rename(bundle.path.join("config.json"), bundle.path.join("gone")).unwrap();
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}
