//! What disks do: full ones, damaged files, and a root folder that another daemon uses.

use std::fs;
use std::time::Instant;

use crate::common::{Bed, LIMIT, Shims, run};
use crate::disks::Disk;

#[test]
fn a_full_root_refuses_records_and_keeps_those_it_has() {
    let mut bed = Bed::new(Shims::Ours);
    bed.kill();
    let root = bed.dir.path().join("small");
    let disk = Disk::mount(&root, 4096);
    bed.root = root.clone();
    bed.start();
    let rootfs = bed.rootfs();
    let create = |id: &str| bed.ctr(&["c", "create", "--rootfs", &rootfs, id, "/bin/sh"]);
    create("first").ok();
    disk.fill();
    let deadline = Instant::now() + LIMIT;
    let mut made = vec!["first".to_owned()];
    let refused = loop {
        let id = format!("c{}", made.len());
        let answer = create(&id);
        if answer.code != Some(0) {
            break answer.stderr;
        }
        made.push(id);
        assert!(Instant::now() < deadline, "it is never full");
    };
    assert!(
        refused.contains("No space left on device") || refused.contains("no space left"),
        "{refused}"
    );
    // Asked more than once, it says the same, and what was stored is still there.
    let again = create("again");
    assert!(
        again.stderr.to_lowercase().contains("no space left"),
        "{again:?}"
    );
    let kept = |bed: &Bed| {
        let listed = bed.ctr(&["c", "ls", "-q"]).ok();
        let mut ids: Vec<String> = listed.lines().map(str::to_owned).collect();
        ids.sort_by_key(|id| (id.len(), id.clone()));
        ids
    };
    made.sort_by_key(|id| (id.len(), id.clone()));
    assert_eq!(kept(&bed), made);
    disk.free();
    create("last").ok();
    made.push("last".to_owned());
    made.sort_by_key(|id| (id.len(), id.clone()));
    assert_eq!(kept(&bed), made);
    bed.kill();
    bed.start();
    assert_eq!(kept(&bed), made);
    bed.kill();
    bed.root = bed.dir.path().join("root");
    drop(disk);
}

#[test]
fn a_full_state_folder_refuses_tasks_whole() {
    let mut bed = Bed::new(Shims::Ours);
    bed.kill();
    let state = bed.dir.path().join("state");
    let disk = Disk::mount(&state, 256);
    bed.start();
    bed.run_detached("before");
    disk.fill();
    let rootfs = bed.rootfs();
    let refused = bed.ctr(&[
        "run", "-d", "--rootfs", &rootfs, "no", "/bin/sh", "-c", "exit 0",
    ]);
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.stderr.to_lowercase().contains("no space left"),
        "{refused:?}"
    );
    assert!(!bed.bundle("no").exists());
    // What runs can be looked at and ended meanwhile.
    bed.wait_status("before", "RUNNING");
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "before"]).ok();
    bed.wait_status("before", "STOPPED");
    bed.ctr(&["task", "rm", "before"]);
    assert!(!bed.bundle("before").exists());
    disk.free();
    bed.run_detached("after");
    bed.wait_status("after", "RUNNING");
    bed.ctr(&["task", "rm", "-f", "after"]);
    bed.kill();
    drop(disk);
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused_by_name() {
    let bed = Bed::new(Shims::Ours);
    bed.run_detached("stays");
    let mut second = bed.command();
    let elsewhere = bed.dir.path().join("s2.sock");
    second.arg("--address").arg(&elsewhere);
    let refused = run(&mut second);
    assert_eq!(refused.code, Some(1));
    let root = bed.dir.path().join("root");
    let wanted = format!("root folder {}: in use by another daemon", root.display());
    assert!(refused.stderr.contains(&wanted), "{refused:?}");
    assert!(!elsewhere.exists());
    bed.wait_status("stays", "RUNNING");
}

#[test]
fn a_damaged_database_is_told_with_its_remedy_and_the_tasks_are_not_touched() {
    let mut bed = Bed::new(Shims::Ours);
    bed.run_detached("stays");
    let task = bed.task("stays");
    bed.kill();
    let path = bed.dir.path().join("root/io.wherry.metadata.v1/meta.redb");
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[..512].fill(0x5a);
    fs::write(&path, &damaged).unwrap();
    let refused = run(&mut bed.command());
    assert_eq!(refused.code, Some(1));
    for wanted in ["meta.redb: damaged", "move it away", "backup"] {
        assert!(
            refused.stderr.contains(wanted),
            "{wanted}: {}",
            refused.stderr
        );
    }
    assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    // As it says: without the file the tasks are there.
    fs::remove_file(&path).unwrap();
    bed.start();
    assert_eq!(bed.task("stays"), task);
    bed.kill();
    fs::write(&path, &whole).unwrap();
    bed.start();
}
