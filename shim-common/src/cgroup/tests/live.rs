//! Killing, removing and OOM on the kernel of this machine, without a container runtime.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use sys::spawn::{Child, Spawn};
use tokio::io::unix::AsyncFd;

use super::super::{Cgroup, FreezeState, Hierarchy, OomChange, Version, oom};
use super::LiveCgroup;

/// Starts `script`, which is in all the cgroups before its first command runs.
fn start(live: &LiveCgroup, script: &str) -> Child {
    let joins: String = live
        .cgroup
        .hierarchies
        .iter()
        .map(|one| format!("echo $$ > {}/cgroup.procs; ", one.dir.display()))
        .collect();
    let mut spawn = Spawn::new("/bin/sh");
    spawn.args = vec!["sh".into(), "-ec".into(), format!("{joins}{script}").into()];
    spawn.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    spawn.spawn().unwrap()
}

/// Waits until `holds`, giving other processes the processor in between.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(
            std::time::Instant::now() < deadline,
            "not within 20 s: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn collect(child: &Child) -> u32 {
    let patience = Duration::from_secs(20);
    sys::wait::wait_timeout(child, patience)
        .unwrap()
        .expect("the child ended")
        .status
}

#[test]
fn all_processes_are_killed_those_in_child_cgroups_and_frozen_ones_too() {
    let Some(live) = LiveCgroup::v1("kill") else {
        return;
    };
    let freezer = live.dir("freezer").to_owned();
    fs::create_dir(live.dir("memory").join("inner")).unwrap();
    let inner = live.dir("memory").join("inner/cgroup.procs");
    // Three processes that fork on and on, one of them in a cgroup of its own.
    let script = format!(
        "(echo $(exec sh -c 'echo $PPID') > {}; exec sleep 1000) & \
         (while :; do sleep 1000 & sleep 0.01; done) & exec sleep 1000",
        inner.display()
    );
    let child = start(&live, &script);
    eventually("four processes", || {
        live.cgroup.processes().unwrap().len() >= 4
            && !fs::read_to_string(&inner).unwrap().trim().is_empty()
    });
    assert!(live.cgroup.populated().unwrap());
    assert_eq!(live.cgroup.freeze_state().unwrap(), FreezeState::Thawed);
    fs::write(freezer.join("freezer.state"), "FROZEN").unwrap();
    eventually("frozen", || {
        live.cgroup.freeze_state().unwrap() == FreezeState::Frozen
    });

    live.cgroup.kill_all().unwrap();

    assert_eq!(collect(&child), 128 + 9);
    assert!(!live.cgroup.populated().unwrap());
    let found = Cgroup::of_process(child.pid)
        .err()
        .map(|error| error.kind());
    assert_eq!(
        found,
        Some(ErrorKind::NotFound),
        "a dead process has no cgroup"
    );
    live.cgroup.remove().unwrap();
    live.cgroup.remove().unwrap();
    assert_eq!(live.cgroup.stats().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        live.cgroup.oom_kills().unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        live.cgroup.processes().unwrap_err().kind(),
        ErrorKind::NotFound
    );
    live.cgroup.kill_all().unwrap();
}

#[test]
fn the_cgroup_of_the_shim_itself_is_never_killed_or_removed() {
    let own = i32::try_from(std::process::id()).unwrap();
    // In the root of all hierarchies there is no cgroup to find at all, which is as safe.
    if let Ok(cgroup) = Cgroup::of_process(own) {
        assert_eq!(
            cgroup.kill_all().unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(cgroup.remove().unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_busy_cgroup_is_not_removed() {
    let Some(live) = LiveCgroup::new("busy") else {
        return;
    };
    let child = start(&live, "exec sleep 1000");
    eventually("the process is in", || {
        live.cgroup.processes().unwrap().contains(&child.pid)
    });
    assert_eq!(
        live.cgroup.remove().unwrap_err().kind(),
        ErrorKind::ResourceBusy
    );
    live.cgroup.kill_all().unwrap();
    assert_eq!(collect(&child), 128 + 9);
}

#[test]
fn an_oom_kill_is_noticed_and_a_removal_is_none() {
    let Some(live) = LiveCgroup::new("oom") else {
        return;
    };
    let memory = live.dir("memory");
    let (limit, with_swap, swap) = match live.cgroup.version() {
        Version::V1 => (
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "16777216",
        ),
        Version::V2 => ("memory.max", "memory.swap.max", "0"),
    };
    fs::write(memory.join(limit), "16777216").unwrap();
    // Some kernels have no swap accounting; then the limit of memory alone must do.
    let _ = fs::write(memory.join(with_swap), swap);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut watch = live.cgroup.watch_oom().unwrap();
        let soon = Duration::from_secs(20);
        for round in 1..=3 {
            let child = start(&live, "tail /dev/zero; exit 3");
            let change = tokio::time::timeout(soon, watch.changed()).await.unwrap();
            assert_eq!(change, OomChange::Grew(round));
            // The shell lives on (or is the victim): either way it ends now.
            collect(&child);
            assert_eq!(live.cgroup.oom_kills().unwrap(), round);
        }
        assert_eq!(watch.seen(), 3);
        let cgroup = live.cgroup.clone();
        if live.cgroup.version() == Version::V2 {
            // Its kernel does not tell of a removal; whoever looks finds it.
            cgroup.remove().unwrap();
        }
        let removal = std::thread::spawn(move || cgroup.remove());
        let change = tokio::time::timeout(soon, watch.changed()).await.unwrap();
        assert_eq!(change, OomChange::Gone);
        removal.join().unwrap().unwrap();
    });
}

#[test]
fn an_oom_kill_before_the_watch_is_reported_first() {
    let Some(live) = LiveCgroup::v1("late") else {
        return;
    };
    let memory = live.dir("memory");
    fs::create_dir(memory.join("inner")).unwrap();
    fs::write(memory.join("inner/memory.limit_in_bytes"), "16777216").unwrap();
    let _ = fs::write(memory.join("inner/memory.memsw.limit_in_bytes"), "16777216");
    let inner = memory.join("inner/cgroup.procs");
    let script = format!("echo $$ > {}; tail /dev/zero; exit 3", inner.display());
    let child = start(&live, &script);
    collect(&child);
    // The kill is counted in the inner cgroup alone; it is the container's all the same.
    assert_eq!(live.cgroup.oom_kills().unwrap(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut watch = live.cgroup.watch_oom().unwrap();
        assert_eq!(watch.changed().await, OomChange::Grew(1));
        let more = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(more.is_err(), "reported once");
    });
}

/// Where a cgroup2 is mounted. A hybrid machine has one beside its v1 hierarchies, without controllers
/// but with all that killing and notices need; on a v2 machine it is the machine's own.
fn cgroup2() -> Option<&'static Path> {
    let points = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let found = points
        .into_iter()
        .find(|point| point.join("cgroup.controllers").exists());
    if found.is_none() {
        eprintln!("SKIPPED: no cgroup2 is mounted");
    }
    found
}

/// Waits until every file has been told changed and has the line.
async fn told(watched: &[AsyncFd<File>], line: &str) {
    let soon = Duration::from_secs(20);
    for file in watched {
        while !oom::reread(file).unwrap().contains(line) {
            let change = tokio::time::timeout(soon, oom::change(file)).await;
            change.unwrap().unwrap();
        }
    }
}

#[test]
fn changes_of_a_v2_file_are_told_to_more_watches_than_inotify_has() {
    let Some(point) = cgroup2() else { return };
    let dir = point.join(format!("wherry-test-{}-poll", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let path = dir.join("cgroup.events");
        // More than one user may have inotify instances (128 by default).
        let watched: Vec<_> = (0..300).map(|_| oom::changes(&path).unwrap()).collect();
        for file in &watched {
            assert!(oom::reread(file).unwrap().contains("populated 0"));
        }
        // What was there at the beginning may be told as a change; after that there is silence.
        for file in &watched {
            let _ = tokio::time::timeout(Duration::from_millis(1), oom::change(file)).await;
        }
        let mut spawn = Spawn::new("/bin/sleep");
        spawn.args = vec!["sleep".into(), "1000".into()];
        let child = spawn.spawn().unwrap();
        fs::write(dir.join("cgroup.procs"), child.pid.to_string()).unwrap();
        told(&watched, "populated 1").await;
        sys::pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL).unwrap();
        assert_eq!(collect(&child), 128 + 9);
        told(&watched, "populated 0").await;
    });
    fs::remove_dir(&dir).unwrap();
}

#[test]
fn all_processes_of_a_v2_cgroup_are_killed_with_and_without_cgroup_kill() {
    let Some(point) = cgroup2() else { return };
    for by_hand in [false, true] {
        let dir = point.join(format!("wherry-test-{}-kill-{by_hand}", std::process::id()));
        fs::create_dir_all(dir.join("inner/most")).unwrap();
        let hierarchy = Hierarchy {
            controllers: "".into(),
            dir: dir.clone().into(),
            is_root: false,
            shared: false,
        };
        let mut cgroup = Cgroup::new(Version::V2, vec![hierarchy]);
        cgroup.root = point.into();
        let live = LiveCgroup { cgroup };
        assert!(!live.cgroup.populated().unwrap());
        let child = start(&live, "sleep 1000 & sleep 1000 & exec sleep 1000");
        eventually("three processes", || {
            live.cgroup.processes().unwrap().len() >= 3
        });
        fs::write(dir.join("inner/most/cgroup.procs"), child.pid.to_string()).unwrap();
        assert!(live.cgroup.processes().unwrap().contains(&child.pid));
        assert!(live.cgroup.populated().unwrap());
        assert_eq!(live.cgroup.freeze_state().unwrap(), FreezeState::Thawed);
        fs::write(dir.join("cgroup.freeze"), "1").unwrap();
        eventually("frozen", || {
            live.cgroup.freeze_state().unwrap() == FreezeState::Frozen
        });
        if by_hand {
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            super::super::kill::kill_one_by_one(&live.cgroup, deadline).unwrap();
        } else {
            live.cgroup.kill_all().unwrap();
        }
        assert_eq!(collect(&child), 128 + 9);
        assert!(!live.cgroup.populated().unwrap());
        live.cgroup.enable_controllers().unwrap();
        live.cgroup.remove().unwrap();
        assert!(!dir.exists());
    }
}
