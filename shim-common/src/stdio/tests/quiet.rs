//! What a relay costs: nothing when quiet, and nothing is left of it. Both look at the whole
//! process, so each runs in one of its own: this test program, started again for one test.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use sys::spawn::Spawn;

use super::*;

/// Whether this is the process of its own; otherwise starts that and waits for it.
fn alone(test: &str) -> bool {
    const MARK: &str = "WHERRY_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut spawn = Spawn::new(std::env::current_exe().unwrap());
    let name = format!("stdio::tests::quiet::{test}");
    spawn
        .args
        .extend([name.into(), "--exact".into(), "--test-threads=1".into()]);
    spawn.env = std::env::vars_os()
        .chain([(MARK.into(), "1".into())])
        .collect();
    let output = File::from(sys::memfd::empty("output").unwrap());
    spawn.stdout = Stdio::Fd(output.try_clone().unwrap().into());
    spawn.stderr = Stdio::Fd(output.try_clone().unwrap().into());
    let child = spawn.spawn().unwrap();
    let status = sys::wait::wait_pid(child.pid).unwrap().status;
    let output = fs::read(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&output)
    ));
    let output = output.unwrap();
    let text = std::ffi::OsStr::from_bytes(&output).to_string_lossy();
    assert!(status == 0 && text.contains("1 passed"), "{text}");
    false
}

fn descriptors() -> Vec<(PathBuf, PathBuf)> {
    let mut all: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            fs::read_link(&path).ok().map(|target| (path, target))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn no_descriptor_is_left_of_any_kind_of_relay() {
    if !alone("no_descriptor_is_left_of_any_kind_of_relay") {
        return;
    }
    on_one_thread(async {
        let client = Client::new();
        let fifos = client.request(true);
        let cases = [
            fifos.clone(),
            Request {
                terminal: true,
                ..fifos.clone()
            },
            Request {
                stdout: format!("file://{}/log", client.folder.path().display()),
                ..fifos.clone()
            },
            Request {
                stdout: "binary:///bin/sh?-c=exec+5>%26-;exec+cat+<%263".to_owned(),
                ..fifos.clone()
            },
            Request {
                stdout: "binary-v2:///bin/true".to_owned(),
                ..fifos.clone()
            },
            Request {
                stderr: "/nonexistent/x".to_owned(),
                ..fifos.clone()
            },
            Request {
                stdout: "other:///x".to_owned(),
                ..fifos
            },
        ];
        let before = descriptors();
        for request in &cases {
            // Once dropped as it is, once started and left with bytes for an absent reader, once
            // ended and awaiting a reader.
            for way in 0..3 {
                let Ok(mut io) = open(request).await else {
                    continue;
                };
                if way > 0 {
                    let told = start(&mut io);
                    if let Stdio::Fd(_) = &io.child.stdout {
                        end(&mut io.child.stdout).write_all(b"x").unwrap();
                    }
                    if way > 1 {
                        io.child = Default::default();
                        io.relay.process_exited();
                        // A terminal's master that never came is for the caller to give up on.
                        if !request.terminal {
                            drained(&io, &told).await;
                        }
                    }
                }
                if way > 0 {
                    io.relay.shut();
                } else {
                    drop(io);
                }
            }
        }
        let mut after = Vec::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while tokio::time::Instant::now() < deadline {
            after = descriptors();
            if after.len() == before.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(
            after.len(),
            before.len(),
            "before {before:?}\nafter {after:?}"
        );
    });
}

/// How often the thread gave up the processor by itself: how often it was woken.
fn waits(task: &Path) -> u64 {
    let status = fs::read_to_string(task.join("status")).unwrap();
    let line = status
        .lines()
        .find(|l| l.starts_with("voluntary_ctxt_switches"));
    let count = line.unwrap().split_ascii_whitespace().nth(1).unwrap();
    count.parse().unwrap()
}

#[test]
fn a_quiet_relay_wakes_nobody_even_with_a_full_fifo_or_a_waiting_end() {
    if !alone("a_quiet_relay_wakes_nobody_even_with_a_full_fifo_or_a_waiting_end") {
        return;
    }
    on_one_thread(async {
        // One stream quiet, one stuck on an absent reader, one ended with bytes for an absent
        // reader; a hung-up terminal; input open.
        let client = Client::new();
        let mut io = opened(&client.request(true)).await;
        start(&mut io);
        let (mut stdout, _quiet) = (end(&mut io.child.stdout), end(&mut io.child.stderr));
        let filled = peer(move || {
            stdout.write_all(&pattern(128 << 10)).unwrap();
            stdout
        });
        let _stdout = filled.done().await;
        let other = Client::new();
        let mut ended = opened(&other.request(false)).await;
        let told = start(&mut ended);
        end(&mut ended.child.stdout).write_all(b"x").unwrap();
        drop(end(&mut ended.child.stderr));
        drained(&ended, &told).await;
        let third = Client::new();
        let (shell, _told, slave) = terminal::with_terminal(&third).await;
        drop(slave);
        // The window: this thread sleeps in epoll_wait while another one watches it.
        let task = fs::canonicalize("/proc/thread-self").unwrap();
        let (result, mut told) = tokio::sync::oneshot::channel();
        let (settled, go) = channel::<()>();
        thread::spawn(move || {
            let _ = go.recv_timeout(Duration::from_millis(300));
            let before = waits(&task);
            let _ = go.recv_timeout(Duration::from_secs(2));
            let _ = result.send(waits(&task) - before);
        });
        assert_eq!((&mut told).await.unwrap(), 0, "woken while idle");
        drop((settled, io, ended, shell));
    });
}
