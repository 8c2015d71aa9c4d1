//! The child as it sees itself, on real programs.

use super::*;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use crate::wait::{wait_pid, wait_timeout};

/// A shell that runs `script`; its output and exit status.
fn run(script: &str, change: impl FnOnce(&mut Spawn)) -> (String, u32) {
    let mut spawn = Spawn::new("/bin/sh");
    spawn.args.extend(["-c".into(), script.into()]);
    output(spawn, change)
}

fn output(mut spawn: Spawn, change: impl FnOnce(&mut Spawn)) -> (String, u32) {
    let (reader, writer) = crate::pipe::pipe().unwrap();
    spawn.stdout = Stdio::Fd(writer);
    change(&mut spawn);
    let child = spawn.spawn().unwrap();
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    (text, wait_pid(child.pid).unwrap().status)
}

fn spawn_error(spawn: Spawn) -> (io::ErrorKind, Step, String) {
    let error = spawn.spawn().unwrap_err();
    let kind = error.kind();
    let text = error.to_string();
    let inner = error
        .into_inner()
        .unwrap()
        .downcast::<SpawnError>()
        .unwrap();
    assert_eq!(inner.source.kind(), kind);
    (kind, inner.step, text)
}

#[test]
fn output_and_status_come_back() {
    assert_eq!(run("echo hello; exit 3", |_| {}), ("hello\n".to_owned(), 3));
}

#[test]
fn the_environment_is_exactly_the_given_one() {
    let (text, _) = output(Spawn::new("/usr/bin/env"), |spawn| {
        spawn.env = vec![("A".into(), "1".into()), ("B".into(), "x=y z".into())];
    });
    assert_eq!(text, "A=1\nB=x=y z\n");
}

#[test]
fn the_working_directory_is_entered() {
    let (text, _) = run("pwd", |spawn| spawn.cwd = Some("/usr/bin".into()));
    assert_eq!(text, "/usr/bin\n");
}

#[test]
fn a_group_of_its_own_only_when_asked() {
    let script = "read -r pid x y ppid group rest </proc/self/stat; echo $$ $group";
    let (text, _) = run(script, |spawn| spawn.new_process_group = true);
    let (pid, group) = text.trim().split_once(' ').unwrap();
    assert_eq!(pid, group);
    let (text, _) = run(script, |_| {});
    let (_, group) = text.trim().split_once(' ').unwrap();
    assert_eq!(group, nix::unistd::getpgrp().to_string());
}

/// The child's own view of its signals is clean although the parent blocks, ignores and handles.
#[test]
fn signal_mask_and_actions_are_clean() {
    crate::signal::ignore_sigpipe().unwrap();
    let _blocked = crate::signal::SignalFd::new(&[libc::SIGCHLD, libc::SIGUSR2]).unwrap();
    let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let own_mask = own.lines().find(|line| line.starts_with("SigBlk")).unwrap();
    assert!(
        !own_mask.ends_with("\t0000000000000000"),
        "the test must have something to show"
    );
    let mut spawn = Spawn::new("/bin/cat");
    spawn.args.push("/proc/self/status".into());
    let (text, _) = output(spawn, |_| {});
    for field in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        assert_eq!(line, format!("{field}:\t0000000000000000"));
    }
    // The parent's own mask is as it was.
    let after = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(after.contains(own_mask));
}

#[test]
fn descriptors_have_the_asked_numbers_and_no_other_is_open() {
    let file = |text: &str| crate::memfd::with_contents("t", text.as_bytes()).unwrap();
    let script = "cat <&3; cat <&9; cat; for fd in /proc/self/fd/*; do echo ${fd##*/}; done";
    let (text, _) = run(script, |spawn| {
        spawn.stdin = Stdio::Fd(file("zero "));
        spawn.extra_fds = vec![(file("three "), 3), (file("nine "), 9)];
    });
    let (contents, numbers) = text.split_once("zero ").unwrap();
    assert_eq!(contents, "three nine ");
    let numbers: Vec<i32> = numbers
        .lines()
        .map(|line| line.parse().unwrap())
        .filter(|&number| number < 10)
        .collect();
    // The shell reads its folder through the lowest free number, 4, or hides it above 10.
    assert!(numbers.starts_with(&[0, 1, 2, 3]), "{numbers:?}");
    assert!(numbers.ends_with(&[9]), "{numbers:?}");
    assert!(numbers.len() <= 6, "{numbers:?}");
}

/// Sources that have the number of their own or of another's target: the cases in which plain
/// dup2 calls in order lose a descriptor or leave it close-on-exec.
#[test]
fn what_our_parent_left_open_does_not_pass_through_us() {
    let leaked = crate::pipe::pipe().unwrap().0;
    crate::process::set_cloexec(&leaked, false).unwrap();
    let (text, _) = run("ls /proc/self/fd", |_| {});
    // 0, 1, 2, and the folder that ls reads.
    assert_eq!(text, "0\n1\n2\n3\n");
}

#[test]
fn sources_may_have_the_numbers_of_targets() {
    let at = |least, text: &str| {
        let file = crate::memfd::with_contents("t", text.as_bytes()).unwrap();
        crate::process::dup_cloexec_from(&file, least).unwrap()
    };
    let first = at(300, "first ");
    let second = at(300, "second ");
    let (one, two) = (first.as_raw_fd(), second.as_raw_fd());
    let third = at(400, "third ");
    let three = third.as_raw_fd();
    let script = format!(
        "cat /proc/self/fd/{one} /proc/self/fd/{two} /proc/self/fd/{three} /proc/self/fd/3"
    );
    let (text, status) = run(&script, |spawn| {
        // Swapped, on itself, and plain.
        let plain = at(500, "plain ");
        spawn.extra_fds = vec![(first, two), (second, one), (third, three), (plain, 3)];
    });
    assert_eq!((text.as_str(), status), ("second first third plain ", 0));
}

#[test]
fn double_and_low_targets_are_refused() {
    for targets in [[5, 5], [2, 5], [-1, 5]] {
        let mut spawn = Spawn::new("/bin/true");
        for target in targets {
            spawn
                .extra_fds
                .push((crate::memfd::empty("t").unwrap(), target));
        }
        assert_eq!(spawn_error(spawn).0, io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_failed_spawn_names_its_step_and_keeps_the_kind() {
    let (kind, step, text) = spawn_error(Spawn::new("/nonexistent/program"));
    assert_eq!(kind, io::ErrorKind::NotFound);
    assert_eq!(step, Step::Exec("/nonexistent/program".into()));
    assert_eq!(
        text,
        "exec /nonexistent/program: No such file or directory (os error 2)"
    );

    let (kind, step, _) = spawn_error(Spawn::new("/etc/passwd"));
    assert_eq!(
        (kind, step),
        (
            io::ErrorKind::PermissionDenied,
            Step::Exec("/etc/passwd".into())
        )
    );

    let mut spawn = Spawn::new("/bin/true");
    spawn.cwd = Some("/nonexistent/folder".into());
    let (kind, step, text) = spawn_error(spawn);
    assert_eq!(kind, io::ErrorKind::NotFound);
    assert_eq!(step, Step::WorkingDirectory("/nonexistent/folder".into()));
    assert!(text.starts_with("chdir /nonexistent/folder: "), "{text}");

    let mut spawn = Spawn::new("/bin/true");
    spawn.parent_death_signal = Some(1000);
    assert_eq!(spawn_error(spawn).1, Step::ParentDeathSignal(1000));

    let mut spawn = Spawn::new("/bin/true");
    spawn
        .extra_fds
        .push((crate::memfd::empty("t").unwrap(), 100_000_000));
    assert_eq!(spawn_error(spawn).1, Step::Descriptor(100_000_000));
}

#[test]
fn arguments_that_no_program_can_get_are_refused() {
    let mut spawn = Spawn::new("/bin/true");
    spawn.args.push("a\0b".into());
    assert_eq!(spawn_error(spawn).0, io::ErrorKind::InvalidInput);
    assert_eq!(
        spawn_error(Spawn::new("true")).0,
        io::ErrorKind::InvalidInput
    );
    let mut spawn = Spawn::new("/bin/true");
    spawn.args.clear();
    assert_eq!(spawn_error(spawn).0, io::ErrorKind::InvalidInput);
}

#[test]
fn the_parent_death_signal_follows_the_spawning_thread() {
    let child = std::thread::spawn(|| {
        let mut spawn = Spawn::new("/bin/sleep");
        spawn.args.push("1000".into());
        spawn.parent_death_signal = Some(libc::SIGTERM);
        spawn.spawn().unwrap()
    });
    let child = child.join().unwrap();
    let exited = wait_timeout(&child, Duration::from_secs(10))
        .unwrap()
        .unwrap();
    assert_eq!(exited.status, 143);
}

#[test]
fn the_pidfd_is_the_childs_and_close_on_exec() {
    let mut spawn = Spawn::new("/bin/sleep");
    spawn.args.push("1000".into());
    let child = spawn.spawn().unwrap();
    assert!(crate::process::is_cloexec(&child.pidfd).unwrap());
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", child.pidfd.as_raw_fd()));
    assert!(info.unwrap().contains(&format!("Pid:\t{}\n", child.pid)));
    crate::pidfd::kill(child.pid, libc::SIGKILL).unwrap();
    wait_pid(child.pid).unwrap();
}

#[test]
fn programs_are_found_as_execvp_does() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let path = OsString::from(format!("/nonexistent:{}:/bin", folder.path().display()));
    assert_eq!(find_program("sh", &path).unwrap(), Path::new("/bin/sh"));
    assert_eq!(
        find_program("/bin/sh", OsStr::new("")).unwrap(),
        Path::new("/bin/sh")
    );
    let error = find_program("plain", &path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let error = find_program("no-such-program", &path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(
        error
            .to_string()
            .contains("executable file not found in $PATH")
    );
    let error = find_program("/no/such", &path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(find_program("", &path).is_err());
}
