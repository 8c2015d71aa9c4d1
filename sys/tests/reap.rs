//! The reaper's call takes any child of the process, so this test is alone in its own.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use wherry_sys as sys;
use wherry_sys::signal::SignalFd;
use wherry_sys::spawn::{Spawn, Stdio};

/// A process whose only thread has blocked SIGCHLD, as a shim's: while libtest's main thread
/// has it open, the kernel discards the signal as an ignored one.
#[test]
fn every_child_is_collected_once() {
    let mut spawn = Spawn::new(std::env::current_exe().unwrap());
    let arguments = ["--exact", "alone", "--ignored", "--test-threads=1"];
    spawn.args.extend(arguments.map(Into::into));
    let (reader, writer) = sys::pipe::pipe().unwrap();
    spawn.stderr = Stdio::Fd(writer.try_clone().unwrap());
    spawn.stdout = Stdio::Fd(writer);
    let child = spawn.spawn().unwrap();
    let output = std::io::read_to_string(std::fs::File::from(reader)).unwrap();
    let exited = sys::wait::wait_pid(child.pid).unwrap();
    assert_eq!(exited.status, 0, "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

/// Many children that end close together: fewer signals than children may come, and every child
/// is collected nevertheless, each once, with its status; then there is nothing more.
#[test]
#[ignore = "runs as the only thread of a process, started by the test above"]
fn alone() {
    let signals = SignalFd::new(&[libc::SIGCHLD]).unwrap();
    assert_eq!(sys::wait::reap().unwrap(), None);
    let mut expected = BTreeMap::new();
    for code in 0..40 {
        let mut spawn = Spawn::new("/bin/sh");
        spawn
            .args
            .extend(["-c".into(), format!("exit {code}").into()]);
        expected.insert(spawn.spawn().unwrap().pid, code);
    }
    let mut collected = BTreeMap::new();
    while collected.len() < expected.len() {
        let ready = sys::pipe::poll_fd(signals.as_fd(), libc::POLLIN, 10_000).unwrap();
        assert_ne!(
            ready, 0,
            "no SIGCHLD in 10 s; collected {collected:?} of {expected:?}"
        );
        while let Some(signal) = signals.read().unwrap() {
            assert_eq!(signal.signo, libc::SIGCHLD);
        }
        while let Some(exited) = sys::wait::reap().unwrap() {
            assert_eq!(collected.insert(exited.pid, exited.status), None);
        }
    }
    assert_eq!(collected, expected);
    assert_eq!(sys::wait::reap().unwrap(), None);
}
