//! The reaper in a process of its own: it blocks signals and collects every child, which a test
//! process with other threads and children could not bear.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test without the harness"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use shim_common::reaper::{Notice, Reaper};
use sys::spawn::{Child, Spawn};

fn shell(script: &str) -> Child {
    let args = ["sh", "-c", script].map(OsString::from).to_vec();
    Spawn {
        args,
        ..Spawn::new("/bin/sh")
    }
    .spawn()
    .unwrap()
}

async fn exits(reaper: &mut Reaper, count: usize) -> BTreeMap<i32, u32> {
    let mut seen = BTreeMap::new();
    while seen.len() < count {
        match reaper.next().await.unwrap() {
            Notice::Exit(e) => {
                assert!(e.exited_at.elapsed().unwrap() < Duration::from_secs(5));
                assert!(seen.insert(e.pid, e.status).is_none(), "{} twice", e.pid);
            }
            Notice::Signal(s) => panic!("signal {s}"),
        }
    }
    seen
}

async fn scenario() {
    // A child that has ended before there was a reaper.
    let early = shell("exit 7");
    assert!(sys::pidfd::wait_readable(&early.pidfd, Duration::from_secs(5)).unwrap());
    let mut reaper = Reaper::new().unwrap();
    assert_eq!(
        exits(&mut reaper, 1).await,
        BTreeMap::from([(early.pid, 7)])
    );

    // Many at once share signals; none is lost, codes and deaths by signal are told apart.
    let mut want = BTreeMap::new();
    for i in 0..40 {
        if i % 2 == 0 {
            want.insert(shell(&format!("exit {i}")).pid, i);
        } else {
            want.insert(shell("kill -9 $$").pid, 137);
        }
    }
    assert_eq!(exits(&mut reaper, want.len()).await, want);

    // The other signals come as they are, and the process survives them.
    for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGINT] {
        sys::pidfd::kill(sys::process::pid(), signal).unwrap();
        assert_eq!(reaper.next().await.unwrap(), Notice::Signal(signal));
    }

    // Dropped at the await, it loses nothing.
    let child = shell("exit 3");
    assert!(sys::pidfd::wait_readable(&child.pidfd, Duration::from_secs(5)).unwrap());
    for _ in 0..3 {
        tokio::select! {
            biased;
            () = std::future::ready(()) => {}
            notice = reaper.next() => panic!("{notice:?}"),
        }
    }
    assert_eq!(
        exits(&mut reaper, 1).await,
        BTreeMap::from([(child.pid, 3)])
    );
    let idle = tokio::time::timeout(Duration::from_millis(50), reaper.next()).await;
    assert!(idle.is_err(), "{idle:?}");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), scenario())
            .await
            .expect("the test hangs");
    });
}
