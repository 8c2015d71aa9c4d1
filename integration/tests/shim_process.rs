//! The served process as the kernel shows it: descriptors, environment, cgroups, core scheduling,
//! and what it writes about itself when asked.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "the harness runs the served mode itself"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use wherry_integration::client::TASK_V2;
use wherry_integration::prelude::*;

/// O_CLOEXEC as fdinfo shows it, in octal.
const CLOEXEC: u32 = 0o2_000_000;

/// The descriptors of a process that its children would inherit, standard ones left out.
fn inheritable(pid: i32) -> Vec<(i32, String)> {
    let mut found = host::descriptors(pid);
    found.retain(|(fd, _)| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:"));
        // One that was closed meanwhile is nobody's.
        let flags = flags.and_then(|f| u32::from_str_radix(f.trim(), 8).ok());
        *fd > 2 && flags.is_some_and(|f| f & CLOEXEC == 0)
    });
    found
}

/// The container's program, once the runtime's own has become it, holds 0, 1 and 2 alone.
#[track_caller]
fn only_standard_descriptors(pid: i32) {
    eventually(SHORT, "the program runs", || host::comm(pid) == "sleep");
    let held = host::descriptors(pid);
    assert!(held.iter().all(|(fd, _)| *fd <= 2), "{held:?}");
}

fn environment(pid: i32) -> BTreeMap<String, String> {
    fs::read(format!("/proc/{pid}/environ"))
        .unwrap()
        .split(|b| *b == 0)
        .filter_map(|entry| {
            let entry = String::from_utf8_lossy(entry).into_owned();
            let (name, value) = entry.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

#[test]
fn every_descriptor_of_a_busy_shim_is_close_on_exec() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::new(&["cat"]));
    let mut stdin = InputFifo::new(&bed.fifo("in"));
    let out = OutputFifo::read(&bed.fifo("out"));
    shim.task
        .create(&bundle.create_with(&stdin.path(), &out.path(), &bed.drain()))
        .unwrap();
    if !inheritable(shim.pid).is_empty() {
        known_difference!("go", "Go passes on what start inherited from its caller");
    }
    assert_eq!(inheritable(shim.pid), []);
    shim.task.start("c1", "").unwrap();
    stdin.open();
    let mut exec = bundle.exec_spec("e1", &Spec::sleeper().terminal());
    exec.stdout = bed.drain();
    shim.task.exec(&exec).unwrap();
    shim.task.start("c1", "e1").unwrap();
    let others: Vec<_> = (0..3).map(|_| shim.task.another()).collect();
    let wait = others[0].spawn(|t| t.wait("c1", "e1").map(drop));
    assert_eq!(inheritable(shim.pid), []);
    shim.task.pause("c1").unwrap();
    shim.task.resume("c1").unwrap();
    assert_eq!(inheritable(shim.pid), []);
    shim.task.kill("c1", "e1", 9, false).unwrap();
    wait.join().unwrap().unwrap();
    stdin.close();
    bed.finish(&bundle, &shim);
}

#[test]
fn the_socket_lies_in_a_folder_of_root_alone() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&shim.socket), 0o600);
    let folder = shim.socket.parent().unwrap();
    // It may be older than this shim: Go's 1.x made it without the x that root does not need.
    assert_eq!(mode(folder) & 0o077, 0);
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn notify_socket_reaches_neither_the_runtime_nor_the_container() {
    let bed = Bed::new();
    let script = "tr '\\0' '\\n' < /proc/self/environ > $DIR/env.$cmd; exec $REAL \"$@\"";
    let mut bundle = bed.bundle("c1", &Spec::sleeper());
    bundle.options.binary_name = bed.wrapper("noting", script).display().to_string();
    let mut request = bed.start_request(&bundle);
    let socket = bed.path("notify").display().to_string();
    request.env.push(("NOTIFY_SOCKET".to_owned(), socket));
    request.env.push(("WHERRY_KEPT".to_owned(), "1".to_owned()));
    let shim = bed.start_with(&request);
    shim.task.create(&bundle.create()).unwrap();
    let pid = shim.task.start("c1", "").unwrap().pid;
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    let exec = shim.task.start("c1", "e1").unwrap().pid;
    for command in ["create", "start", "exec"] {
        let env = fs::read_to_string(bed.path(&format!("env.{command}"))).unwrap();
        assert!(
            env.contains("WHERRY_KEPT=1"),
            "the script sees the environment"
        );
        assert!(!env.contains("NOTIFY_SOCKET"), "{command}: {env}");
    }
    for pid in [pid, exec] {
        let env = environment(i32::try_from(pid).unwrap());
        assert!(!env.contains_key("NOTIFY_SOCKET"), "{env:?}");
        assert!(!env.contains_key("WHERRY_KEPT"), "{env:?}");
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn a_debug_start_works_and_logs_more() {
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let mut request = bed.start_request(&bundle);
    request.debug = true;
    let shim = bed.start_with(&request);
    assert!(host::cmdline(shim.pid).contains(&"-debug".to_owned()));
    shim.task.create(&bundle.create()).unwrap();
    let pid = i32::try_from(shim.task.start("c1", "").unwrap().pid).unwrap();
    only_standard_descriptors(pid);
    eventually(SHORT, "a line of level debug", || {
        shim.log().contains("level=debug")
    });
    bed.finish(&bundle, &shim);
}

#[test]
fn sockets_handed_over_as_descriptors_3_and_4_serve_and_do_not_reach_the_container() {
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let log = fs::File::options()
        .read(true)
        .write(true)
        .open(bundle.path.join("log"))
        .unwrap();
    let path = bed.path("task.sock");
    let listener: OwnedFd = UnixListener::bind(&path).unwrap().into();
    let debug: OwnedFd = UnixListener::bind(bed.path("debug.sock")).unwrap().into();
    let mut request = bed.start_request(&bundle);
    request.debug = true;
    let given = request.command();
    // A shell gives the descriptors their numbers: the harness has no code between fork and exec.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec \"$@\" 3<&0 4<&1 </dev/null >/dev/null", "sh"])
        .arg(given.get_program())
        .args(given.get_args())
        .envs(given.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .current_dir(&bundle.path)
        .stdin(Stdio::from(listener))
        .stdout(Stdio::from(debug))
        .stderr(log);
    let mut child = command.spawn().unwrap();
    drop(command);
    let task = TaskClient::connect(&path, TASK_V2).unwrap();
    let served = task.patience(SHORT).connect_task("c1").unwrap();
    assert_eq!(served.shim_pid, child.id());
    task.create(&bundle.create()).unwrap();
    let pid = i32::try_from(task.start("c1", "").unwrap().pid).unwrap();
    only_standard_descriptors(pid);
    // The shell and the harness may have left others open.
    known_difference!("go", "Go leaves both as they were handed over");
    let mut inherits = inheritable(i32::try_from(child.id()).unwrap());
    inherits.retain(|(fd, _)| *fd == 3 || *fd == 4);
    assert_eq!(inherits, []);
    task.kill("c1", "", 9, false).unwrap();
    task.wait("c1", "").unwrap();
    task.delete("c1", "").unwrap();
    let _ = task.shutdown("c1");
    child.wait().unwrap();
    bed.discard(&bundle);
    let _ = fs::remove_file(bed.path("debug.sock"));
    let _ = fs::remove_file(&path);
    bed.assert_clean();
}

#[test]
fn sched_core_gives_the_shim_and_its_containers_a_cookie_of_their_own() {
    // PR_SCHED_CORE, PR_SCHED_CORE_GET; a kernel without it says EINVAL. The start must work.
    let bed = Bed::new();
    let bundle = bed.bundle("c1", &Spec::sleeper());
    let mut request = bed.start_request(&bundle);
    request.env.push(("SCHED_CORE".to_owned(), "1".to_owned()));
    let outcome = request.run();
    let text = String::from_utf8_lossy(&outcome.output).into_owned();
    if outcome.code != Some(0) {
        // Go and ours alike: whoever asks for it shall not silently go without it.
        assert!(text.contains("sched"), "{text}");
        assert!(bed.processes().is_empty());
        bed.discard(&bundle);
        bed.assert_clean();
        target::skipped("the kernel has no core scheduling; the start says so");
        return;
    }
    let shim = bed.start_with(&request);
    if let Some(coresched) = target::find_in_path("coresched") {
        let source = format!("--source={}", shim.pid);
        let told = Command::new(coresched).args(["get", &source]).output();
        let told = String::from_utf8_lossy(&told.unwrap().stdout).into_owned();
        assert!(told.contains("0x") && !told.contains("0x0\n"), "{told}");
    } else {
        target::skipped("coresched, which tells a process's cookie, is not installed");
    }
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn the_shims_cgroup_lists_it_in_every_subsystem() {
    let bed = Bed::new();
    let mut bundle = bed.bundle("c1", &Spec::sleeper());
    bundle.options.shim_cgroup = bed.cgroup("shims");
    host::make_cgroup(&bed.cgroup("shims"));
    let shim = bed.start(&bundle);
    let mut absent = Vec::new();
    for hierarchy in host::cgroup_hierarchies() {
        let own = hierarchy.join(bed.cgroup("shims").trim_start_matches('/'));
        let procs = fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
        if !procs.lines().any(|l| l == shim.pid.to_string()) {
            absent.push(hierarchy);
        }
    }
    if !absent.is_empty() && !target::cgroup_v2() {
        // The named hierarchy is systemd's and the unified one of a hybrid machine nobody's.
        absent.retain(|h| !h.ends_with("systemd") && !h.ends_with("unified"));
    }
    assert!(absent.is_empty(), "{absent:?}");
    bed.shut(&bundle, &shim);
    eventually(SHORT, "the shims' cgroup is empty", || {
        host::remove_empty_cgroup(&bed.cgroup("shims"));
        host::cgroups(&bed.cgroup("shims")).is_empty()
    });
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn sigusr1_tells_containers_processes_operations_queues_and_fifos() {
    known_difference!("go", "Go writes its stacks");
    let bed = Bed::new();
    let script = "[ $cmd = pause ] && { touch $DIR/began; while ! [ -e $DIR/go ]; do sleep 0.02; done; }; \
         exec $REAL \"$@\"";
    let mut bundle = bed.bundle("c1", &Spec::new(&["cat"]));
    bundle.options.binary_name = bed.wrapper("slow", script).display().to_string();
    let shim = bed.start(&bundle);
    let mut stdin = InputFifo::new(&bed.fifo("in"));
    let out = OutputFifo::read(&bed.fifo("out"));
    shim.task
        .create(&bundle.create_with(&stdin.path(), &out.path(), &bed.drain()))
        .unwrap();
    let init = shim.task.start("c1", "").unwrap().pid;
    stdin.open();
    shim.task
        .exec(&bundle.exec("e1", &["sleep", "1000"]))
        .unwrap();
    let exec = shim.task.start("c1", "e1").unwrap().pid;
    shim.task.exec(&bundle.exec("e2", &["true"])).unwrap();
    bed.sink().wait_brief("exec-added c1/e2");
    // With the daemon away events queue up, and with a slow runtime an operation is pending.
    bed.sink().go_away();
    shim.task.exec(&bundle.exec("e3", &["true"])).unwrap();
    let pause = shim.task.another().spawn(|t| t.pause("c1").map(drop));
    eventually(SHORT, "the pause is under way", || {
        bed.path("began").exists()
    });
    host::signal(shim.pid, Signal::SIGUSR1);
    let wanted = [
        "container c1".to_owned(),
        format!("{init}"),
        "e1".to_owned(),
        format!("{exec}"),
        "e2".to_owned(),
        "Pause".to_owned(),
        "events queued=1".to_owned(),
        "stdin: held".to_owned(),
        out.path(),
    ];
    let told = || shim.log().split("state: ").nth(1).map(str::to_owned);
    let complete = || told().is_some_and(|t| wanted.iter().all(|w| t.contains(w)));
    if !holds(SHORT, complete) {
        let text = told().unwrap_or_default();
        let absent: Vec<_> = wanted.iter().filter(|w| !text.contains(*w)).collect();
        panic!("the dump does not tell {absent:?}: {text}");
    }
    bed.sink().come_back();
    bed.flag("go");
    pause.join().unwrap().unwrap();
    shim.task.resume("c1").unwrap();
    stdin.close();
    bed.finish(&bundle, &shim);
}
