//! What people do with `ctr` on a stock containerd, on the shims under test: every command of a
//! container's life, under each way to name the runtime.

use std::fs;
use std::path::Path;

use wherry_integration::e2e::{
    Containerd, IMAGE, LONG, Running, SHORT, are_go_shims, in_terminal, shim_dir, unpack_rootfs,
    until,
};

const V2: &str = "io.containerd.runc.v2";
const V1: &str = "io.containerd.runc.v1";

/// Starts a container that sleeps until it is killed, and checks whose shim it runs under.
fn sleeper(node: &Containerd, runtime: &str, name: &str) -> String {
    let id = node.id(name);
    // The first process of a container ignores signals it has no handler for, so TERM needs one.
    let script = "trap 'exit 42' TERM; while :; do sleep 1000 & wait $!; done";
    let args = [
        "run",
        "-d",
        "--null-io",
        "--runtime",
        runtime,
        IMAGE,
        &id,
        "sh",
        "-c",
        script,
    ];
    let _ = node.ctr(args).ok();
    node.await_status(&id, "RUNNING");
    let exe = node.shim_of(&id).exe;
    assert!(
        exe.starts_with(shim_dir()),
        "the shim under test runs: {}",
        exe.display()
    );
    id
}

fn run_prints_and_returns_the_exit_code(runtime: &str) {
    let node = Containerd::start(&shim_dir());
    let id = node.id("once");
    let script = "echo to stdout; echo to stderr >&2; exit 7";
    let args = [
        "run",
        "--rm",
        "--runtime",
        runtime,
        IMAGE,
        &id,
        "sh",
        "-c",
        script,
    ];
    let output = node.ctr(args).code_is(7);
    assert_eq!(output.stdout, "to stdout\n", "{output}");
    assert!(output.stderr.contains("to stderr\n"), "{output}");
    node.footprint().assert_clean();
}

fn whole_life(runtime: &str) {
    let node = Containerd::start(&shim_dir());
    let id = sleeper(&node, runtime, "life");

    let output = node
        .ctr([
            "task",
            "exec",
            "--exec-id",
            "e1",
            &id,
            "sh",
            "-c",
            "echo in exec; exit 3",
        ])
        .code_is(3);
    assert_eq!(output.stdout, "in exec\n", "{output}");

    let pids = node.ctr(["task", "ps", &id]).ok();
    assert!(
        pids.stdout.lines().count() >= 3,
        "a header, the shell and its sleep: {pids}"
    );

    let metrics = node.ctr(["task", "metrics", &id]).ok();
    assert!(
        metrics.stdout.contains(&id) && metrics.stdout.contains("memory"),
        "{metrics}"
    );

    let _ = node.ctr(["task", "pause", &id]).ok();
    assert_eq!(node.status(&id).as_deref(), Some("PAUSED"));
    let refused = node.ctr(["task", "exec", "--exec-id", "e2", &id, "true"]);
    assert!(
        refused.stderr.contains("cannot exec in a paused"),
        "{refused}"
    );
    let _ = node.ctr(["task", "resume", &id]).ok();
    assert_eq!(node.status(&id).as_deref(), Some("RUNNING"));

    let refused = node.ctr(["task", "delete", &id]);
    assert_ne!(refused.code, 0, "a running task is not deleted: {refused}");

    let _ = node.ctr(["task", "kill", "--signal", "SIGTERM", &id]).ok();
    node.await_status(&id, "STOPPED");
    node.delete(&id, 42);
    node.footprint().assert_clean();
}

#[test]
fn v2_run_prints_and_returns_the_exit_code() {
    run_prints_and_returns_the_exit_code(V2);
}

#[test]
fn v1_run_prints_and_returns_the_exit_code() {
    run_prints_and_returns_the_exit_code(V1);
}

#[test]
fn a_shim_by_absolute_path_prints_and_returns_the_exit_code() {
    let shim = shim_dir().join("containerd-shim-runc-v2");
    run_prints_and_returns_the_exit_code(&shim.to_string_lossy());
}

#[test]
fn v2_exec_ps_metrics_pause_resume_kill_delete() {
    whole_life(V2);
}

#[test]
fn v1_exec_ps_metrics_pause_resume_kill_delete() {
    whole_life(V1);
}

#[test]
fn a_shim_by_absolute_path_exec_ps_metrics_pause_resume_kill_delete() {
    let shim = shim_dir().join("containerd-shim-runc-v2");
    whole_life(&shim.to_string_lossy());
}

#[test]
fn run_with_a_terminal_has_one() {
    let node = Containerd::start(&shim_dir());
    let id = node.id("term");
    let inner = node.ctr_command(["run", "--rm", "-t", IMAGE, &id, "sh", "-c", "tty; exit 5"]);
    // ctr reads its terminal until the container ends, so the input stays open.
    let output = Running::start(in_terminal(&inner)).wait(LONG).code_is(5);
    assert!(
        output.stdout.contains("/dev/pts/") || output.stdout.contains("/dev/console"),
        "{output}"
    );
    node.footprint().assert_clean();
}

#[test]
fn exec_with_a_terminal_echoes_what_is_typed() {
    let node = Containerd::start(&shim_dir());
    let id = sleeper(&node, V2, "exec-term");
    let inner = node.ctr_command(["task", "exec", "-t", "--exec-id", "e", &id, "sh"]);
    let mut shell = Running::start(in_terminal(&inner));
    shell.stdout_until(LONG, |text| text.contains('#'));
    shell.type_in("test -t 0 && echo answer is $((6 * 7))\n");
    shell.stdout_until(LONG, |text| text.contains("answer is 42"));
    shell.type_in("exit 9\n");
    let _ = shell.wait(LONG).code_is(9);
    node.remove(&id);
    node.footprint().assert_clean();
}

#[test]
fn standard_input_reaches_the_container_and_its_end_too() {
    let node = Containerd::start(&shim_dir());
    let id = node.id("stdin");
    let mut cat = node.ctr_start(["run", "--rm", IMAGE, &id, "cat"]);
    cat.type_in("first\n");
    cat.stdout_until(LONG, |text| text.contains("first"));
    cat.type_in("second\n");
    cat.close_stdin();
    let output = cat.wait(LONG).ok();
    assert_eq!(output.stdout, "first\nsecond\n", "{output}");
    node.footprint().assert_clean();
}

#[test]
fn a_megabyte_of_output_arrives_whole() {
    let node = Containerd::start(&shim_dir());
    let id = node.id("much");
    let script =
        "i=0; while [ $i -lt 20000 ]; do echo line $i of many of the same kind; i=$((i+1)); done";
    let output = node
        .ctr(["run", "--rm", IMAGE, &id, "sh", "-c", script])
        .ok();
    let expected: String = (0..20000)
        .map(|i| format!("line {i} of many of the same kind\n"))
        .collect();
    assert!(
        output.stdout == expected,
        "{} of {} bytes",
        output.stdout.len(),
        expected.len()
    );
    node.footprint().assert_clean();
}

#[test]
fn a_command_that_does_not_exist_fails_with_the_runtimes_words() {
    let node = Containerd::start(&shim_dir());
    let id = node.id("absent");
    let output = node.ctr(["run", "--rm", IMAGE, &id, "/no/such/program"]);
    assert_ne!(output.code, 0, "{output}");
    // Docker and others tell a missing command from other failures by this text.
    assert!(
        output
            .stderr
            .contains("failed to create shim task: OCI runtime create failed"),
        "{output}"
    );
    assert!(output.stderr.contains("/no/such/program"), "{output}");
    assert!(
        output.stderr.contains("no such file or directory"),
        "{output}"
    );
    node.footprint().assert_clean();
}

#[test]
fn a_root_file_system_that_is_no_snapshot() {
    let node = Containerd::start(&shim_dir());
    let id = node.id("rootfs");
    let rootfs = node.path("plain-rootfs");
    fs::create_dir(&rootfs).unwrap();
    unpack_rootfs(&rootfs);
    let args = [
        "run",
        "--rm",
        "--rootfs",
        &*rootfs.to_string_lossy(),
        &id,
        "/bin/echo",
        "hello",
    ];
    let output = node.ctr(args).ok();
    assert_eq!(output.stdout, "hello\n", "{output}");
    node.footprint().assert_clean();
}

#[test]
fn crun_as_runc_binary() {
    let node = Containerd::start(&shim_dir());
    node.make_crun_usable();
    let id = node.id("crun");
    let args = [
        "run",
        "-d",
        "--null-io",
        "--runc-binary",
        "crun",
        IMAGE,
        &id,
        "sleep",
        "1000",
    ];
    let _ = node.ctr(args).ok();
    node.await_status(&id, "RUNNING");
    let bundle = node.footprint().bundle(&id);
    let runtime = fs::read_to_string(bundle.join("runtime")).unwrap();
    assert_eq!(
        runtime.trim(),
        "crun",
        "the bundle says which runtime its container is of"
    );
    let output = node.ctr([
        "task",
        "exec",
        "--exec-id",
        "e",
        &id,
        "sh",
        "-c",
        "echo by crun; exit 4",
    ]);
    assert_eq!(output.code_is(4).stdout, "by crun\n");
    let _ = node.ctr(["task", "pause", &id]).ok();
    let _ = node.ctr(["task", "resume", &id]).ok();
    node.remove(&id);
    node.footprint().assert_clean();
}

#[test]
fn a_runc_root_of_its_own_is_used_and_emptied() {
    let node = Containerd::start(&shim_dir());
    let id = node.id("root");
    let root = node.path("runc-root");
    let root_text = root.to_string_lossy();
    let args = [
        "run",
        "-d",
        "--null-io",
        "--runc-root",
        &*root_text,
        IMAGE,
        &id,
        "sleep",
        "1000",
    ];
    let _ = node.ctr(args).ok();
    let states = |root: &Path| -> usize {
        let namespaces = fs::read_dir(root).unwrap().flatten();
        namespaces
            .map(|folder| fs::read_dir(folder.path()).unwrap().count())
            .sum()
    };
    assert_eq!(
        states(&root),
        1,
        "runc's state is in the root that was asked for"
    );
    node.remove(&id);
    until("runc's state to be removed", SHORT, || {
        (states(&root) == 0).then_some(())
    });
    node.footprint().assert_clean();
}

#[test]
fn two_containers_of_one_group_share_a_shim() {
    let node = Containerd::start(&shim_dir());
    let group = node.id("pod");
    let annotation = format!("io.containerd.runc.v2.group={group}");
    let ids = [group.clone(), node.id("member")];
    for id in &ids {
        let args = [
            "run",
            "-d",
            "--null-io",
            "--annotation",
            &annotation,
            IMAGE,
            id,
            "sleep",
            "1000",
        ];
        let _ = node.ctr(args).ok();
        node.await_status(id, "RUNNING");
    }
    let shims = node.footprint().shims();
    assert_eq!(shims.len(), 1, "one shim for both: {shims:?}");

    // The first to be started goes first: the shim must stay for the other.
    node.remove(&ids[0]);
    assert_eq!(
        node.footprint().shims().len(),
        1,
        "the shim stays while a container of it lives"
    );
    let output = node
        .ctr([
            "task",
            "exec",
            "--exec-id",
            "e",
            &ids[1],
            "echo",
            "still here",
        ])
        .ok();
    assert_eq!(output.stdout, "still here\n");
    node.remove(&ids[1]);
    node.footprint().assert_clean();
}

#[test]
fn a_group_named_by_the_sandbox_annotation_shares_a_shim() {
    let node = Containerd::start(&shim_dir());
    let group = node.id("sandbox");
    let annotation = format!("io.kubernetes.cri.sandbox-id={group}");
    let ids = [group.clone(), node.id("inner")];
    for id in &ids {
        let args = [
            "run",
            "-d",
            "--null-io",
            "--annotation",
            &annotation,
            IMAGE,
            id,
            "sleep",
            "1000",
        ];
        let _ = node.ctr(args).ok();
    }
    assert_eq!(node.footprint().shims().len(), 1, "one shim for both");
    for id in ids.iter().rev() {
        node.remove(id);
    }
    node.footprint().assert_clean();
}

/// dd's buffer alone is past the limit that goes with it.
const HOG: &str = "exec dd if=/dev/zero of=/dev/null bs=256M count=1";
const LIMIT: [&str; 2] = ["--memory-limit", "16777216"];

#[test]
fn a_task_out_of_memory_is_killed_and_told() {
    let node = Containerd::start(&shim_dir());
    let mut events = node.ctr_start(["events"]);
    let id = node.id("hog");
    let script = format!("while ! [ -e /now ]; do sleep 0.1; done; {HOG}");
    let head = ["run", "-d", "--null-io"].iter().chain(&LIMIT);
    let _ = node
        .ctr(head.chain(&[IMAGE, &*id, "sh", "-c", &script]))
        .ok();
    node.await_status(&id, "RUNNING");
    let _ = node
        .ctr(["task", "exec", "--exec-id", "e", &id, "touch", "/now"])
        .ok();
    node.await_status(&id, "STOPPED");
    events.stdout_until(LONG, |text| text.contains("/tasks/oom"));
    node.delete(&id, 137);
    events.signal(nix::sys::signal::Signal::SIGKILL);
    node.footprint().assert_clean();
}

#[test]
fn a_task_out_of_memory_in_its_first_moment_is_told_before_its_exit() {
    let node = Containerd::start(&shim_dir());
    let mut events = node.ctr_start(["events"]);
    let id = node.id("hog");
    let head = ["run", "--rm"].iter().chain(&LIMIT);
    let _ = node
        .ctr(head.chain(&[IMAGE, &*id, "sh", "-c", HOG]))
        .code_is(137);
    let seen = events.stdout_until(LONG, |text| text.contains("/tasks/delete"));
    // The Go shim of 1.6 begins to watch only after the start, and tells it after the exit.
    if !are_go_shims(&shim_dir()) {
        let (oom, exit) = (seen.find("/tasks/oom"), seen.find("/tasks/exit"));
        assert!(oom.is_some() && oom < exit, "{seen}");
    }
    events.signal(nix::sys::signal::Signal::SIGKILL);
    node.footprint().assert_clean();
}

#[test]
fn sixteen_at_once_leave_nothing_behind() {
    let node = Containerd::start(&shim_dir());
    let mut clients: Vec<Running> = (0..16)
        .map(|number| {
            let id = node.id(&format!("many-{number}"));
            let script = format!("echo {number}; exit {number}");
            node.ctr_start(["run", "--rm", IMAGE, &id, "sh", "-c", &script])
        })
        .collect();
    for (number, client) in (0..).zip(&mut clients) {
        let output = client.wait(LONG * 2).code_is(number);
        assert_eq!(output.line(), number.to_string());
    }
    node.footprint().assert_clean();
}
