//! What happens to containers while the daemon is away is told when it is back: every exit once,
//! of first processes and of execs, and every OOM.
//!
//! Go's shims give an event up after some 15 s, which `WHERRY_SLOW=1` waits for. The short way to
//! the same is somebody who takes the events in the daemon's place and tells nobody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::{Background, Bed, Shims, background, eventually, run};
use containerd_shim_protos::ttrpc;
use daemon::ttrpc::server::{Receiver, serve};
use task_api::events::ForwardRequest;

fn kill_process(pid: i32) {
    run(Command::new("kill").args(["-9", &pid.to_string()])).ok();
}

/// Takes events and tells nobody, as long as it lives.
struct Thief {
    topics: Arc<Mutex<Vec<String>>>,
    socket: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

struct Topics(Arc<Mutex<Vec<String>>>);

impl Receiver for Topics {
    fn receive(&self, request: ForwardRequest) -> ttrpc::Result<()> {
        let topic = request.envelope.unwrap_or_default().topic;
        self.0.lock().unwrap().push(topic);
        Ok(())
    }
}

impl Thief {
    fn new(bed: &Bed) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let socket = bed.dir.path().join("s.sock.ttrpc");
        let _ = fs::remove_file(&socket);
        let _context = runtime.enter();
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let topics = Arc::default();
        runtime.spawn(serve(listener, Arc::new(Topics(Arc::clone(&topics)))));
        Self {
            topics,
            socket,
            _runtime: runtime,
        }
    }

    fn wait(&self, topic: &str, count: usize) {
        eventually(&format!("{count} of {topic}"), || {
            let topics = self.topics.lock().unwrap();
            topics.iter().filter(|taken| *taken == topic).count() == count
        });
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// Who listens to the daemon's events from as soon as it is there.
struct Listener {
    out: PathBuf,
    _watcher: Background,
}

impl Listener {
    fn new(bed: &Bed) -> Self {
        let out = bed.dir.path().join("events");
        let watcher = background(bed.ctr_command().arg("events"), &out);
        let listener = Self {
            out,
            _watcher: watcher,
        };
        eventually("it listens", || {
            bed.ctr(&["ns", "label", &bed.namespace, "seen=1"]).ok();
            listener.seen().contains("/namespaces/update")
        });
        listener
    }

    fn seen(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    fn count(&self, topic: &str, part: &str) -> usize {
        self.seen()
            .lines()
            .filter(|line| line.contains(topic) && line.contains(part))
            .count()
    }
}

fn note(bed: &Bed, id: &str, name: &str) -> String {
    fs::read_to_string(bed.bundle(id).join(name)).unwrap_or_default()
}

/// Starts an exec that does not end, and answers its pid.
fn long_exec(bed: &Bed, id: &str) -> i32 {
    bed.ctr(&[
        "task",
        "exec",
        "-d",
        "--exec-id",
        "e1",
        id,
        "/bin/busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let table = bed.ctr(&["task", "ps", id]).ok();
    let of_exec = table.lines().find(|line| line.contains("e1")).unwrap();
    of_exec.split_whitespace().next().unwrap().parse().unwrap()
}

/// While the daemon is away, the first process of one container is killed, and an exec of
/// another. The shims' events about it go to a thief.
fn exits_that_nobody_heard_of(shims: Shims) {
    let mut bed = Bed::new(shims);
    bed.run_detached("ends");
    bed.run_detached("stays");
    let (ends, _) = bed.task("ends").unwrap();
    let exec = long_exec(&bed, "stays");
    bed.kill();
    let thief = Thief::new(&bed);
    kill_process(ends);
    kill_process(exec);
    thief.wait("/tasks/exit", 2);
    drop(thief);

    bed.start();
    bed.wait_status("ends", "STOPPED");
    let listener = Listener::new(&bed);
    let first = format!(r#""id":"ends","pid":{ends},"exit_status":137"#);
    let second = format!(r#""container_id":"stays","id":"e1","pid":{exec},"exit_status":137"#);
    eventually("both are told", || {
        [&first, &second].map(|part| listener.count("/tasks/exit", part)) == [1, 1]
    });
    assert!(note(&bed, "ends", ".wherry-exit").starts_with("daemon "));
    assert!(note(&bed, "stays", ".wherry-execs/e1").starts_with("daemon "));
    drop(listener);

    // The next daemon knows it.
    bed.kill();
    bed.start();
    bed.wait_status("ends", "STOPPED");
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "stays"]).ok();
    bed.wait_status("stays", "STOPPED");
    let told = bed.log().matches("is told in its shim's place").count();
    assert_eq!(told, 2, "{}", bed.log());
    let ended = bed.ctr(&["task", "rm", "ends"]).stderr;
    assert!(ended.contains("non-zero exit code 137"), "{ended}");
}

#[test]
fn exits_that_nobody_heard_of_are_told_once() {
    exits_that_nobody_heard_of(Shims::Ours);
}

#[test]
fn exits_that_nobody_heard_of_are_told_once_for_the_go_shim() {
    exits_that_nobody_heard_of(Shims::Go);
}

/// The shim is heard as soon as the daemon is back: nobody tells in its place.
fn exits_that_the_shim_tells_itself(shims: Shims) {
    let mut bed = Bed::new(shims);
    bed.run_detached("ends");
    let (ends, _) = bed.task("ends").unwrap();
    bed.kill();
    kill_process(ends);
    bed.start();
    eventually("the shim has told", || {
        note(&bed, "ends", ".wherry-exit").starts_with("shim ")
    });
    bed.wait_status("ends", "STOPPED");
    assert!(!bed.log().contains("in its shim's place"), "{}", bed.log());
}

#[test]
fn exits_that_the_shim_tells_itself_are_not_told_for_it() {
    exits_that_the_shim_tells_itself(Shims::Ours);
    exits_that_the_shim_tells_itself(Shims::Go);
}

/// A container that is out of memory in a process that is not its first, when told to be.
fn run_hungry(bed: &Bed) {
    let script = "while ! [ -e /go ]; do /bin/busybox sleep 0.1; done; \
                  /bin/busybox tail /dev/zero; while :; do /bin/busybox sleep 0.1; done";
    let rootfs = bed.rootfs();
    let limit = (16 << 20).to_string();
    bed.ctr(&[
        "run",
        "-d",
        "--memory-limit",
        &limit,
        "--rootfs",
        &rootfs,
        "hungry",
        "/bin/sh",
        "-c",
        script,
    ])
    .ok();
}

fn ooms_that_nobody_heard_of(shims: Shims) {
    let mut bed = Bed::new(shims);
    run_hungry(&bed);
    bed.kill();
    let thief = Thief::new(&bed);
    fs::write(bed.dir.path().join("rootfs/go"), "").unwrap();
    thief.wait("/tasks/oom", 1);
    drop(thief);
    bed.start();
    let listener = Listener::new(&bed);
    eventually("it is told", || {
        listener.count("/tasks/oom", r#""container_id":"hungry""#) == 1
    });
    drop(listener);
    bed.kill();
    bed.start();
    bed.ctr(&["task", "kill", "-s", "SIGKILL", "hungry"]).ok();
    bed.wait_status("hungry", "STOPPED");
    assert_eq!(bed.log().matches("an OOM is told").count(), 1);
}

#[test]
fn ooms_that_nobody_heard_of_are_told_once() {
    ooms_that_nobody_heard_of(Shims::Ours);
}

#[test]
fn ooms_that_nobody_heard_of_are_told_once_for_the_go_shim() {
    ooms_that_nobody_heard_of(Shims::Go);
}

#[test]
fn slow_what_the_go_shim_has_given_up_is_told_in_its_place() {
    if std::env::var_os("WHERRY_SLOW").is_none() {
        return;
    }
    let mut bed = Bed::new(Shims::Go);
    bed.run_detached("ends");
    let (ends, _) = bed.task("ends").unwrap();
    let log = bed.bundle("ends").join("log");
    bed.kill();
    // In the daemon's place, so that the shim's log has a reader.
    let out = bed.dir.path().join("shim-log");
    let _reader = background(Command::new("cat").arg(&log), &out);
    kill_process(ends);
    eventually("it gives up", || {
        let said = fs::read_to_string(&out).unwrap_or_default();
        said.matches("failed to publish").count() + said.matches("forward").count() > 4
            && said.contains("evicting")
    });
    bed.start();
    let listener = Listener::new(&bed);
    let part = format!(r#""id":"ends","pid":{ends},"exit_status":137"#);
    eventually("it is told", || listener.count("/tasks/exit", &part) == 1);
    assert!(note(&bed, "ends", ".wherry-exit").starts_with("daemon "));
}
