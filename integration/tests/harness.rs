//! The harness itself: what it leaves when a test is ended from outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests, and a word between them"
)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use wherry_integration::prelude::*;

/// Set for the test that hangs, which passes at once in any other run.
const HANG: &str = "WHERRY_HANG";

#[test]
fn a_test_that_hangs() {
    if std::env::var_os(HANG).is_none() {
        return;
    }
    let bed = Bed::new();
    let (_bundle, shim) = bed.running("c1", &Spec::sleeper());
    let init = shim.task.state("c1", "").unwrap().pid;
    println!("hangs {} {} {init}", bed.dir().display(), shim.pid);
    // For ever.
    loop {
        std::thread::park();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test runs itself")]
fn a_test_that_is_ended_from_outside_leaves_nothing() {
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["a_test_that_hangs", "--exact", "--nocapture"])
        .env(HANG, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(test.stdout.take().unwrap()).lines();
    let said = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("hangs ")?.1.to_owned()))
        .unwrap();
    let [dir, shim, init] = said.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{said:?}");
    };
    let pids = [shim.parse().unwrap(), init.parse().unwrap()];
    let lived = pids.map(host::alive);
    host::signal(i32::try_from(test.id()).unwrap(), Signal::SIGTERM);
    let status = test.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    assert_eq!(lived, [true, true], "{pids:?}");
    assert!(!pids.iter().any(|pid| host::alive(*pid)), "{pids:?}");
    assert!(!std::path::Path::new(dir).exists(), "{dir}");
}
