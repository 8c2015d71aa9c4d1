//! The reaper's call, in a process with a single thread as a shim's. It has no harness: that
//! would run the test beside a thread that has SIGCHLD open, and the kernel would give the
//! signal to that thread and drop it as an ignored one. Besides, reaping takes the children of
//! every other test in the process.

#![expect(
    clippy::print_stdout,
    reason = "the list of tests is what a test runner asks for"
)]
#![expect(clippy::unwrap_used, reason = "a failure of a test is a panic")]

use std::collections::BTreeMap;

use sys::signal::SignalFd;
use sys::spawn::Spawn;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // The one test is not an ignored one.
        if !has("--ignored") {
            println!("every_child_is_collected_once: test");
        }
        return;
    }
    every_child_is_collected_once();
}

/// Many children that end close together: fewer signals than children may come, and every child
/// is collected nevertheless, each once, with its status; then there is nothing more.
fn every_child_is_collected_once() {
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
        let ready = sys::pipe::poll_fd(&signals, libc::POLLIN, 10_000).unwrap();
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
