//! Containers outlive their containerd, and whatever dies in between is told and cleaned up.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_integration::e2e::{
    Containerd, IMAGE, LONG, Running, SHORT, command, shim_dir, until, until_ok,
};

/// Starts `script` detached in a container of this name.
fn start(node: &Containerd, name: &str, script: &str) -> String {
    let id = node.id(name);
    let _ = node
        .ctr(["run", "-d", "--null-io", IMAGE, &id, "sh", "-c", script])
        .ok();
    node.await_status(&id, "RUNNING");
    id
}

/// The pid of the first process of container `id`, as `ctr task ls` gives it.
fn init_pid(node: &Containerd, id: &str) -> i32 {
    let list = node.ctr(["task", "ls"]).ok();
    let pid = list.stdout.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(id)).then(|| words.next()?.parse().ok())?
    });
    pid.unwrap_or_else(|| panic!("no pid of {id}: {list}"))
}

fn exists(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

#[test]
fn containers_run_on_while_containerd_is_away_and_are_usable_after() {
    let mut node = Containerd::start(&shim_dir());
    let id = start(
        &node,
        "stays",
        "trap 'exit 42' TERM; while :; do sleep 1000 & wait $!; done",
    );
    let (pid, shim) = (init_pid(&node, &id), node.shim_of(&id).pid);
    node.kill_daemon();
    assert!(exists(pid), "the container runs on");
    node.restart_daemon();

    assert_eq!(node.status(&id).as_deref(), Some("RUNNING"));
    assert_eq!(node.shim_of(&id).pid, shim, "the same shim serves");
    assert_eq!(init_pid(&node, &id), pid);
    let output = node.ctr([
        "task",
        "exec",
        "--exec-id",
        "e",
        &id,
        "sh",
        "-c",
        "echo again; exit 3",
    ]);
    assert_eq!(output.code_is(3).stdout, "again\n");
    let metrics = node.ctr(["task", "metrics", &id]).ok();
    assert!(metrics.stdout.contains("memory"), "{metrics}");

    let _ = node.ctr(["task", "kill", "--signal", "SIGTERM", &id]).ok();
    node.await_status(&id, "STOPPED");
    node.delete(&id, 42);
    node.footprint().assert_clean();
}

#[test]
fn an_exit_while_containerd_is_away_keeps_its_code() {
    let mut node = Containerd::start(&shim_dir());
    // The container ends when the file appears, which the test makes through /proc.
    let id = start(
        &node,
        "leaves",
        "while ! [ -e /leave ]; do sleep 0.1; done; exit 23",
    );
    let pid = init_pid(&node, &id);
    node.kill_daemon();
    std::fs::write(format!("/proc/{pid}/root/leave"), b"").unwrap();
    until("the container to end", LONG, || {
        (!exists(pid)).then_some(())
    });

    node.restart_daemon();
    node.await_status(&id, "STOPPED");
    node.delete(&id, 23);
    node.footprint().assert_clean();
}

#[test]
fn an_exit_while_containerd_is_away_is_published_when_it_is_back() {
    let mut node = Containerd::start(&shim_dir());
    let id = start(
        &node,
        "told",
        "while ! [ -e /leave ]; do sleep 0.1; done; exit 24",
    );
    let pid = init_pid(&node, &id);
    node.kill_daemon();
    std::fs::write(format!("/proc/{pid}/root/leave"), b"").unwrap();
    until("the container to end", LONG, || {
        (!exists(pid)).then_some(())
    });

    node.restart_daemon();
    // The event may come before any client could subscribe: the daemon's own log tells of it.
    until("the daemon to take the exit", LONG, || {
        let log = std::fs::read(node.path("containerd.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        log.lines()
            .any(|line| line.contains("event forwarded") && line.contains("topic=/tasks/exit"))
            .then_some(())
    });
    node.delete(&id, 24);
    node.footprint().assert_clean();
}

#[test]
fn an_attached_clients_output_goes_on_while_containerd_is_away() {
    let mut node = Containerd::start(&shim_dir());
    let id = node.id("talks");
    let fifos = node.path("fifos");
    let script = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done";
    let fifos_text = fifos.to_string_lossy();
    let args = [
        "run",
        "-d",
        "--fifo-dir",
        &*fifos_text,
        IMAGE,
        &id,
        "sh",
        "-c",
        script,
    ];
    let _ = node.ctr(args).ok();
    // ctr itself ends with its daemon, so the client here is a plain reader of the output FIFO.
    let fifo = node
        .path("fifos")
        .join(fifo_name(&fifos, &format!("{id}-stdout")));
    let reader = Running::start(command("cat", [&fifo]));
    let more_lines_than =
        |lines: usize| reader.stdout_until(LONG, move |text| text.lines().count() > lines);
    let before = more_lines_than(3).lines().count();
    node.kill_daemon();
    let away = more_lines_than(before + 10).lines().count();
    node.restart_daemon();
    node.await_status(&id, "RUNNING");
    let seen = more_lines_than(away + 10);

    let ticks: Vec<u64> = seen
        .split_inclusive('\n')
        .filter_map(|line| line.strip_prefix("tick ")?.strip_suffix('\n')?.parse().ok())
        .collect();
    assert!(ticks.len() > away, "{seen}");
    let in_order = ticks.windows(2).all(|pair| pair[1] == pair[0] + 1);
    assert!(in_order, "every line arrives once and in order: {seen}");

    let _ = node.ctr(["task", "kill", "--signal", "SIGKILL", &id]).ok();
    node.await_status(&id, "STOPPED");
    let mut reader = reader;
    let _ = reader.wait(LONG).ok();
    node.delete(&id, 137);
    node.footprint().assert_clean();
}

/// The path below `folder` of the FIFO `name`, which ctr puts into a folder of random name.
fn fifo_name(folder: &Path, name: &str) -> PathBuf {
    let mut folders = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{error}"))
        .flatten();
    let found = folders.find_map(|entry| {
        let path = Path::new(&entry.file_name()).join(name);
        folder.join(&path).exists().then_some(path)
    });
    found.unwrap_or_else(|| panic!("no FIFO {name} below {}", folder.display()))
}

#[test]
fn a_client_attaches_after_a_restart_of_containerd() {
    let mut node = Containerd::start(&shim_dir());
    let id = node.id("again");
    let script = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done";
    let fifos = node.path("fifos").to_string_lossy().into_owned();
    let args = [
        "run",
        "-d",
        "--fifo-dir",
        &fifos,
        IMAGE,
        &id,
        "sh",
        "-c",
        script,
    ];
    let _ = node.ctr(args).ok();
    node.restart_daemon();
    let mut second = node.ctr_start(["task", "attach", &id]);
    second.stdout_until(LONG, |text| text.lines().count() > 5);
    let _ = node.ctr(["task", "kill", "--signal", "SIGKILL", &id]).ok();
    let _ = second.wait(LONG).code_is(137);
    let _ = node.ctr(["container", "delete", &id]).ok();
    node.footprint().assert_clean();
}

#[test]
fn a_killed_shim_leaves_nothing_behind() {
    let node = Containerd::start(&shim_dir());
    let id = start(&node, "orphan", "sleep 1000 & sleep 1000");
    let (pid, shim) = (init_pid(&node, &id), node.shim_of(&id).pid);
    let mut events = node.ctr_start(["events"]);
    // The subscription must stand before the shim dies.
    let probe = node
        .ctr(["container", "create", "--runtime", "none", IMAGE, "probe"])
        .ok();
    assert_eq!(probe.code, 0);
    until_ok("the events to come", LONG, || {
        let _ = node.ctr(["container", "label", "probe", "try=1"]);
        let seen = events.stdout_until(LONG, |_| true);
        if seen.contains("/containers/update") {
            Ok(())
        } else {
            Err(seen)
        }
    });

    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    let seen = events.stdout_until(LONG, |text| text.contains("/tasks/delete"));
    assert!(
        seen.contains("/tasks/exit"),
        "containerd tells the end of the task: {seen}"
    );
    until("the container to die", SHORT, || {
        (!exists(pid)).then_some(())
    });
    events.signal(Signal::SIGKILL);
    let _ = node.ctr(["container", "delete", &id]).ok();
    node.footprint().assert_clean_after_a_crash(&shim_dir());
}

#[test]
fn a_shim_killed_while_containerd_is_away_leaves_nothing_behind() {
    let mut node = Containerd::start(&shim_dir());
    let id = start(&node, "both", "sleep 1000");
    let (pid, shim) = (init_pid(&node, &id), node.shim_of(&id).pid);
    node.kill_daemon();
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    node.restart_daemon();
    until("the container to die", SHORT, || {
        (!exists(pid)).then_some(())
    });
    let _ = node.ctr(["container", "delete", &id]).ok();
    node.footprint().assert_clean_after_a_crash(&shim_dir());
}

#[test]
fn a_killed_shim_of_a_group_leaves_nothing_of_both_containers() {
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
        ];
        let _ = node.ctr(args.iter().chain(&["sleep", "1000"])).ok();
    }
    kill(Pid::from_raw(node.shim_of(&group).pid), Signal::SIGKILL).unwrap();
    until("both tasks to be gone", LONG, || {
        ids.iter().all(|id| node.status(id).is_none()).then_some(())
    });
    for id in &ids {
        let _ = node.ctr(["container", "delete", id]).ok();
    }
    node.footprint().assert_clean_after_a_crash(&shim_dir());
}
