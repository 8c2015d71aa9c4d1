//! What people do with Docker, on an unmodified engine over a stock containerd with the shims
//! under test.

use std::collections::VecDeque;
use std::fs;

use wherry_integration::e2e::{
    Dockerd, LONG, Running, are_go_shims, in_terminal, quick, shim_dir, until,
};

/// `docker run --rm --network none` with these flags and this command, as arguments.
fn run_rm<'a>(flags: &[&'a str], cmd: &[&'a str]) -> Vec<&'a str> {
    let head = ["run", "--rm", "--network", "none"];
    [&head, flags, &[Dockerd::IMAGE], cmd].concat()
}

/// A detached container that sleeps until it is told to end, under the shim under test.
fn sleeper(engine: &Dockerd, flags: &[&str]) -> String {
    let script = "trap 'exit 42' TERM; while :; do sleep 1000 & wait $!; done";
    let id = engine.run_detached(flags, &["sh", "-c", script]);
    let exe = engine.footprint().shim_of(&id).exe;
    assert!(
        exe.starts_with(shim_dir()),
        "the shim under test runs: {}",
        exe.display()
    );
    id
}

/// Removes a container by force; nothing may be left.
fn remove(engine: &Dockerd, id: &str) {
    let _ = engine.docker(["rm", "--force", id]).ok();
    engine.footprint().assert_clean();
}

#[test]
fn run_prints_and_returns_the_exit_code() {
    let engine = Dockerd::start(&shim_dir());
    let script = "echo to stdout; echo to stderr >&2; exit 7";
    let output = engine.docker(run_rm(&[], &["sh", "-c", script])).code_is(7);
    assert_eq!(
        (&*output.stdout, &*output.stderr),
        ("to stdout\n", "to stderr\n")
    );
    engine.footprint().assert_clean();
}

#[test]
fn a_command_that_does_not_exist_is_127_and_one_not_executable_126() {
    let engine = Dockerd::start(&shim_dir());
    // The engine tells these apart by the text of the shim's error.
    let _ = engine
        .docker(run_rm(&[], &["/no/such/program"]))
        .code_is(127);
    let _ = engine.docker(run_rm(&[], &["/etc/passwd"])).code_is(126);
    let id = sleeper(&engine, &[]);
    let exec = engine.docker(["exec", &id, "/no/such/program"]);
    // Engines before 23 do not tell them apart here.
    assert!([126, 127].contains(&exec.code), "{exec}");
    remove(&engine, &id);
}

#[test]
fn standard_input_reaches_the_container_and_its_end_too() {
    let engine = Dockerd::start(&shim_dir());
    let mut cat = engine.docker_start(run_rm(&["-i"], &["cat"]));
    cat.type_in("first\n");
    cat.stdout_until(LONG, |text| text.contains("first"));
    cat.type_in("second\n");
    cat.close_stdin();
    assert_eq!(cat.wait(LONG).ok().stdout, "first\nsecond\n");
    engine.footprint().assert_clean();
}

#[test]
fn a_terminal_echoes_what_is_typed() {
    let engine = Dockerd::start(&shim_dir());
    let mut shell = Running::start(in_terminal(
        &engine.docker_command(run_rm(&["-i", "-t"], &["sh"])),
    ));
    shell.stdout_until(LONG, |text| text.contains('#'));
    shell.type_in("test -t 0 && echo answer is $((6 * 7))\n");
    shell.stdout_until(LONG, |text| text.contains("answer is 42"));
    shell.type_in("exit 9\n");
    let _ = shell.wait(LONG).code_is(9);
    engine.footprint().assert_clean();
}

#[test]
fn exec_with_and_without_a_terminal() {
    let engine = Dockerd::start(&shim_dir());
    let id = sleeper(&engine, &[]);
    let output = engine
        .docker(["exec", &id, "sh", "-c", "echo in exec; exit 3"])
        .code_is(3);
    assert_eq!(output.stdout, "in exec\n");
    let inner = engine.docker_command(["exec", "-t", &id, "sh", "-c", "tty; exit 4"]);
    let output = Running::start(in_terminal(&inner)).wait(LONG).code_is(4);
    assert!(output.stdout.contains("/dev/pts/"), "{output}");
    let mut cat = engine.docker_start(["exec", "-i", &id, "cat"]);
    cat.type_in("through\n");
    cat.close_stdin();
    assert_eq!(cat.wait(LONG).ok().stdout, "through\n");
    remove(&engine, &id);
}

#[test]
fn stats_and_top() {
    let engine = Dockerd::start(&shim_dir());
    let id = sleeper(&engine, &["--memory", "64m"]);
    let format = "{{.MemUsage}} {{.PIDs}}";
    let stats = engine
        .docker(["stats", "--no-stream", "--format", format, &id])
        .ok();
    assert!(
        stats.line().contains("64MiB") && stats.line().ends_with(" 2"),
        "{stats}"
    );
    assert!(
        !stats.line().starts_with("0B"),
        "memory is counted: {stats}"
    );
    let top = engine.docker(["top", &id]).ok();
    assert!(top.stdout.contains("sleep 1000"), "{top}");
    remove(&engine, &id);
}

#[test]
fn pause_and_unpause() {
    let engine = Dockerd::start(&shim_dir());
    let id = sleeper(&engine, &[]);
    let _ = engine.docker(["pause", &id]).ok();
    assert_eq!(engine.inspect(&id, "{{.State.Status}}"), "paused");
    let refused = engine.docker(["exec", &id, "true"]);
    assert!(refused.stderr.contains("paused"), "{refused}");
    let _ = engine.docker(["unpause", &id]).ok();
    assert_eq!(engine.inspect(&id, "{{.State.Status}}"), "running");
    let _ = engine.docker(["exec", &id, "true"]).ok();
    remove(&engine, &id);
}

#[test]
fn a_paused_container_is_killed() {
    let engine = Dockerd::start(&shim_dir());
    let id = sleeper(&engine, &[]);
    let _ = engine.docker(["pause", &id]).ok();
    remove(&engine, &id);
}

#[test]
fn update_changes_the_limits_of_a_running_container() {
    let engine = Dockerd::start(&shim_dir());
    let id = sleeper(&engine, &["--memory", "64m", "--cpu-shares", "512"]);
    let limits = [
        "--memory",
        "32m",
        "--memory-swap",
        "-1",
        "--cpu-shares",
        "256",
    ];
    let _ = engine
        .docker(["update"].iter().chain(&limits).chain(&[&*id]))
        .ok();
    let format = "{{.HostConfig.Memory}} {{.HostConfig.CpuShares}}";
    assert_eq!(engine.inspect(&id, format), "33554432 256");
    let stats = engine
        .docker(["stats", "--no-stream", "--format", "{{.MemUsage}}", &id])
        .ok();
    assert!(
        stats.line().ends_with("/ 32MiB"),
        "the cgroup has the new limit: {stats}"
    );
    remove(&engine, &id);
}

#[test]
fn kill_sends_the_signal_that_was_asked_for() {
    let engine = Dockerd::start(&shim_dir());
    let script = "trap 'echo got USR1' USR1; trap 'exit 42' TERM; echo ready; \
                  while :; do sleep 1000 & wait $!; done";
    let id = engine.run_detached(&[], &["sh", "-c", script]);
    let logs = engine.docker_start(["logs", "--follow", &id]);
    logs.stdout_until(LONG, |text| text.contains("ready"));
    let _ = engine.docker(["kill", "--signal", "USR1", &id]).ok();
    logs.stdout_until(LONG, |text| text.contains("got USR1"));
    let _ = engine.docker(["kill", "--signal", "TERM", &id]).ok();
    let waited = engine.docker(["wait", &id]).ok();
    assert_eq!(waited.line(), "42");
    remove(&engine, &id);
}

#[test]
fn stop_and_start_again() {
    let engine = Dockerd::start(&shim_dir());
    let id = sleeper(&engine, &[]);
    let _ = engine.docker(["stop", &id]).ok();
    assert_eq!(
        engine.inspect(&id, "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 42"
    );
    engine.footprint().assert_clean();
    let _ = engine.docker(["start", &id]).ok();
    assert_eq!(engine.inspect(&id, "{{.State.Status}}"), "running");
    let _ = engine.docker(["exec", &id, "true"]).ok();
    remove(&engine, &id);
}

#[test]
fn logs_hold_every_line_of_both_streams() {
    let engine = Dockerd::start(&shim_dir());
    let script = "i=0; while [ $i -lt 5000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let id = engine.run_detached(&[], &["sh", "-c", script]);
    let _ = engine.docker(["wait", &id]).ok();
    let logs = engine.docker(["logs", &id]).ok();
    let lines = |word: &str| -> String { (0..5000).map(|i| format!("{word} {i}\n")).collect() };
    assert!(
        logs.stdout == lines("out"),
        "{} bytes of stdout",
        logs.stdout.len()
    );
    assert!(
        logs.stderr == lines("err"),
        "{} bytes of stderr",
        logs.stderr.len()
    );
    remove(&engine, &id);
}

#[test]
fn healthchecks_tell_health_and_sickness() {
    let engine = Dockerd::start(&shim_dir());
    let flags = [
        "--health-cmd",
        "test -e /well",
        "--health-interval",
        "200ms",
    ];
    let flags = [&flags[..], &["--health-retries", "2"]].concat();
    let id = sleeper(&engine, &flags);
    let health = "{{.State.Health.Status}}";
    engine.await_field(&id, health, "unhealthy");
    let _ = engine.docker(["exec", &id, "touch", "/well"]).ok();
    engine.await_field(&id, health, "healthy");
    remove(&engine, &id);
}

#[test]
fn a_hog_past_its_memory_limit_is_out_of_memory_killed() {
    let engine = Dockerd::start(&shim_dir());
    // dd's buffer alone is past the limit.
    let script = "while ! [ -e /now ]; do sleep 0.1; done; \
                  exec dd if=/dev/zero of=/dev/null bs=256M count=1";
    let id = engine.run_detached(&["--memory", "16m"], &["sh", "-c", script]);
    let _ = engine.docker(["exec", &id, "touch", "/now"]).ok();
    let waited = engine.docker(["wait", &id]).ok();
    assert_eq!(waited.line(), "137");
    assert_eq!(
        engine.inspect(&id, "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "true 137"
    );
    remove(&engine, &id);
}

#[test]
fn a_hog_in_its_first_moment_is_out_of_memory_killed() {
    let engine = Dockerd::start(&shim_dir());
    let hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"];
    let id = engine.run_detached(&["--memory", "16m"], &hog);
    let waited = engine.docker(["wait", &id]).ok();
    assert_eq!(waited.line(), "137");
    // The Go shim of 1.6 begins to watch only after the start, and tells it after the exit.
    if !are_go_shims(&shim_dir()) {
        assert_eq!(engine.inspect(&id, "{{.State.OOMKilled}}"), "true");
    }
    remove(&engine, &id);
}

#[test]
fn a_container_killed_without_a_limit_is_not_out_of_memory() {
    let engine = Dockerd::start(&shim_dir());
    let id = sleeper(&engine, &["--memory", "64m"]);
    let _ = engine.docker(["kill", &id]).ok();
    let _ = engine.docker(["wait", &id]).ok();
    assert_eq!(
        engine.inspect(&id, "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "false 137"
    );
    remove(&engine, &id);
}

#[test]
fn a_restart_of_containerd_leaves_attached_client_and_container_alone() {
    let mut engine = Dockerd::start(&shim_dir());
    let cidfile = engine.path("cid");
    let cidfile_text = cidfile.to_string_lossy().into_owned();
    let script = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done";
    let flags = ["--cidfile", &cidfile_text];
    let client = engine.docker_start(run_rm(&flags, &["sh", "-c", script]));
    let tick = |number: usize| move |text: &str| text.contains(&format!("tick {number}\n"));
    client.stdout_until(LONG, tick(3));
    let id = fs::read_to_string(&cidfile).unwrap();
    engine.footprint().note_id(&id);
    engine.kill_containerd();
    let before = client.stdout_until(LONG, |_| true).lines().count();
    client.stdout_until(LONG, tick(before + 10));
    engine.restart_containerd();
    let seen = client.stdout_until(LONG, tick(before + 20));
    let whole: String = (1..=before + 20)
        .map(|number| format!("tick {number}\n"))
        .collect();
    assert!(
        seen.starts_with(&whole),
        "every line arrives once and in order: {seen}"
    );
    until("the engine to be on the new containerd", LONG, || {
        (engine.docker(["exec", &id, "true"]).code == 0).then_some(())
    });
    let _ = engine.docker(["kill", &id]).ok();
    let mut client = client;
    let _ = client.wait(LONG).code_is(137);
    engine.footprint().assert_clean();
}

/// Two hundred containers, eight at a time; with `WHERRY_QUICK`, twenty-five.
#[test]
fn slow_two_hundred_runs_leave_no_trace() {
    let engine = Dockerd::start(&shim_dir());
    let total = if quick() { 25 } else { 200 };
    let mut clients: VecDeque<(i32, Running)> = VecDeque::new();
    let finish = |(number, mut client): (i32, Running)| {
        let output = client.wait(LONG).code_is(number % 100);
        assert_eq!(output.line(), format!("run {number}"));
        let id = fs::read_to_string(engine.path(&format!("cid-{number}"))).unwrap();
        engine.footprint().note_id(&id);
    };
    for number in 0..total {
        if clients.len() == 8 {
            clients.pop_front().map(finish);
        }
        let cidfile = engine
            .path(&format!("cid-{number}"))
            .to_string_lossy()
            .into_owned();
        let script = format!("echo run {number}; exit {}", number % 100);
        let args = run_rm(&["--cidfile", &cidfile], &["sh", "-c", &script]);
        clients.push_back((number, engine.docker_start(args)));
    }
    clients.into_iter().for_each(finish);
    engine.footprint().assert_clean();
}
