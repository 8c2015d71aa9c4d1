//! A shim at the limits that its operator or the kernel sets: descriptors, memory, pids.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests run prlimit, and themselves in a PID namespace"
)]

use std::fs;
use std::process::Command;

use wherry_integration::prelude::*;

/// Sets one limit of a process: `nofile=20`.
fn limit(pid: i32, what: &str) {
    let output = Command::new("prlimit")
        .args([&format!("--pid={pid}"), &format!("--{what}")])
        .output()
        .expect("prlimit is installed");
    assert!(output.status.success(), "{output:?}");
}

fn highest_descriptor(pid: i32) -> i32 {
    let all = host::descriptors(pid);
    all.iter().map(|(fd, _)| *fd).max().unwrap()
}

#[test]
fn creates_without_descriptors_fail_clearly_and_leave_nothing() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    // What the first Create leaves for good is no leak of the ones that fail.
    shim.task.create(&bundle.create()).unwrap();
    shim.task.delete("c1", "").unwrap();
    let before = Leaks::of_shim(shim.pid);
    let mut failed = 0;
    // Each limit lets the create come one step further.
    for more in 1..24 {
        limit(
            shim.pid,
            &format!("nofile={}:4096", highest_descriptor(shim.pid) + more),
        );
        let out = OutputFifo::read(&bed.fifo(&format!("out{more}")));
        let request = bundle.create_with("", &out.path(), &bed.drain());
        match shim.task.patience(SHORT).create(&request) {
            Ok(_) => {
                limit(shim.pid, "nofile=4096:4096");
                shim.task.delete("c1", "").unwrap();
            }
            Err(error) => {
                failed += 1;
                println!("{more}: {error}");
                limit(shim.pid, "nofile=4096:4096");
                let text = error.message().to_lowercase();
                assert!(
                    text.contains("too many open files")
                        || text.contains("runtime")
                        || text.contains("oci"),
                    "{more}: {error}"
                );
            }
        }
        assert!(shim.alive(), "{more}");
        if target::flavor() != target::Flavor::Go {
            assert!(host::cgroup_members(&bundle.cgroup).is_empty(), "{more}");
            assert_eq!(
                bed.runtime_states(),
                Vec::<std::path::PathBuf>::new(),
                "{more}"
            );
            let mut left = Vec::new();
            let same = holds(SHORT, || {
                left = Leaks::of_shim(shim.pid).compare(&before);
                left.is_empty()
            });
            assert!(same, "{more}: {left:?}");
        }
    }
    known_difference!("go", "Go has free numbers below its highest descriptor");
    assert!(failed > 3, "the limit was never met");
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn execs_without_descriptors_fail_alone_and_leave_nothing() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let exec = |id: &str, out: &OutputFifo| {
        let mut request = bundle.exec(id, &["sleep", "1000"]);
        request.stdout = out.path();
        request.stderr = bed.drain();
        shim.task.exec(&request).unwrap();
    };
    let before = Leaks::of_shim(shim.pid);
    let mut failed = 0;
    for more in 1..16 {
        let id = format!("e{more}");
        let out = OutputFifo::read(&bed.fifo(&id));
        exec(&id, &out);
        limit(
            shim.pid,
            &format!("nofile={}:4096", highest_descriptor(shim.pid) + more),
        );
        let started = shim.task.patience(SHORT).start("c1", &id);
        limit(shim.pid, "nofile=4096:4096");
        match started {
            Ok(_) => {
                shim.task.kill("c1", &id, 9, false).unwrap();
                shim.task.wait("c1", &id).unwrap();
            }
            Err(error) => {
                failed += 1;
                assert!(error.code().is_some(), "{more}: {error}");
            }
        }
        shim.task.delete("c1", &id).unwrap();
        assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    }
    known_difference!("go", "Go has free numbers below its highest descriptor");
    assert!(failed > 2, "the limit was never met");
    let mut left = Vec::new();
    let same = holds(SHORT, || {
        left = Leaks::of_shim(shim.pid).compare(&before);
        left.is_empty() && host::cgroup_members(&bundle.cgroup).len() == 1
    });
    assert!(same, "{left:?}, {:?}", host::cgroup_members(&bundle.cgroup));
    bed.finish(&bundle, &shim);
}

#[test]
fn connections_without_descriptors_wait_and_the_shim_does_not_spin() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    limit(
        shim.pid,
        &format!("nofile={}:4096", highest_descriptor(shim.pid) + 1),
    );
    let clients: Vec<_> = (0..4).map(|_| shim.task.another()).collect();
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    let before = cpu_ticks(shim.pid);
    assert!(!holds(Duration::from_secs(1), || false));
    let spent = cpu_ticks(shim.pid) - before;
    assert!(spent < 20, "{spent} ticks of a second spent on waiting");
    limit(shim.pid, "nofile=4096:4096");
    for client in &clients {
        let state = client.patience(SHORT).state("c1", "").unwrap();
        assert_eq!(state.status(), Status::RUNNING);
    }
    bed.finish(&bundle, &shim);
}

/// User and system time of a process in clock ticks, a hundredth of a second each.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The half of the next test that runs as pid 1 of a PID namespace; alone it does nothing.
#[test]
fn many_execs_among_few_pids() {
    if std::env::var_os("WHERRY_FEW_PIDS").is_none() {
        return;
    }
    fs::write("/proc/sys/kernel/pid_max", "400").unwrap();
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let threads: Vec<_> = (0..3)
        .map(|lane| {
            let bundle = bundle.clone();
            shim.task.another().spawn(move |task| {
                let mut pids = Vec::new();
                for n in 0..167_u32 {
                    let id = format!("e{lane}-{n}");
                    let script = format!("exit {}", n % 200);
                    task.exec(&bundle.exec(&id, &["sh", "-c", &script]))
                        .unwrap();
                    pids.push(task.start("c1", &id).unwrap().pid);
                    assert_eq!(task.wait("c1", &id).unwrap().exit_status, n % 200, "{id}");
                    task.delete("c1", &id).unwrap();
                }
                pids
            })
        })
        .collect();
    let mut pids: Vec<u32> = threads
        .into_iter()
        .flat_map(|t| t.join().unwrap())
        .collect();
    assert_eq!(pids.len(), 501);
    pids.sort_unstable();
    pids.dedup();
    assert!(pids.len() <= 400, "no pid came twice");
    bed.sink().wait_brief("exit c1/e2-166 166");
    let mut exits = bed.sink().briefs();
    exits.retain(|b| b.starts_with("exit "));
    assert_eq!(exits.len(), 501, "one exit each");
    for lane in 0..3 {
        for n in 0..167 {
            let brief = format!("exit c1/e{lane}-{n} {}", n % 200);
            assert_eq!(exits.iter().filter(|b| **b == brief).count(), 1, "{brief}");
        }
    }
    bed.end(&bundle, &shim);
    bed.remove(&bundle);
    println!("five hundred and one execs among {} pids", pids.len());
}

#[test]
fn five_hundred_execs_among_a_hundred_pids_are_told_once_each_with_their_status() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || {
        numbers
            .next()
            .and_then(|n| n.parse::<u32>().ok())
            .unwrap_or(0)
    };
    skip_unless!(
        (next(), next()) >= (6, 14),
        "PID namespaces have a pid_max of their own from Linux 6.14 on"
    );
    let before = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["many_execs_among_few_pids", "--exact", "--nocapture"])
        .env("WHERRY_FEW_PIDS", "1")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let after = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    assert_eq!(after, before, "the machine's own limit");
    assert!(output.status.success(), "{text}");
    assert!(text.contains("execs among"), "{text}");
}
