//! Shims that are not what they should be: scripts in the place of the binary, and a shim played
//! by the test, which answers what it likes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim_protos::ttrpc::{Code, Request, Response};
use protobuf::Message;
use task_api::task::{CreateTaskResponse, StateResponse, Status};

use crate::common::{Bed, Ran, Shims, eventually};

/// A shim's binary that is a script: what it does at `start`, and nothing at `delete`.
fn script(bed: &Bed, start: &str) -> String {
    let path = bed.dir.path().join("containerd-shim-odd-v1");
    let deleted = bed.dir.path().join("deleted");
    let text = format!(
        "#!/bin/sh\nfor last; do :; done\ncase $last in\n\
         start) {start};;\n\
         delete) echo x >> {};;\n\
         *) exit 1;;\nesac\n",
        deleted.display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn try_run(bed: &Bed, shim: &str, id: &str) -> Ran {
    let rootfs = bed.rootfs();
    bed.ctr(&[
        "run",
        "-d",
        "--null-io",
        "--runtime",
        shim,
        "--rootfs",
        &rootfs,
        id,
        "/bin/sh",
    ])
}

#[track_caller]
fn refused(bed: &Bed, start: &str, wanted: &[&str]) {
    let ran = try_run(bed, &script(bed, start), "odd");
    assert_ne!(ran.code, Some(0), "{start}");
    for wanted in wanted {
        assert!(
            ran.stderr.contains(wanted),
            "{start}: {wanted}: {}",
            ran.stderr
        );
    }
    // Cleaned up by its own `delete`, and nothing is left: the id is free again.
    assert!(bed.dir.path().join("deleted").exists(), "{start}");
    fs::remove_file(bed.dir.path().join("deleted")).unwrap();
    assert!(!bed.bundle("odd").exists(), "{start}");
    assert_eq!(bed.task("odd"), None);
    bed.ctr(&["c", "rm", "odd"]);
}

#[test]
fn a_binary_that_is_no_shim_is_refused_with_what_it_said() {
    let bed = Bed::new(Shims::Ours);
    refused(&bed, "echo usage: odd", &["usage: odd"]);
    refused(&bed, ":", &["no address", "it said nothing"]);
    refused(
        &bed,
        "echo boom >&2; exit 3",
        &["start failed", "3", "boom"],
    );
    refused(
        &bed,
        "echo so far; kill -9 $$",
        &["start failed", "signal: 9", "so far"],
    );
    // What it prints goes on for ever: neither waited for nor kept.
    refused(&bed, "yes", &["start failed", "y\ny\n"]);
    refused(
        &bed,
        "echo unix:///nowhere/s",
        &["/nowhere/s", "No such file"],
    );
    let file = bed.dir.path().join("config.toml");
    let start = format!("echo unix://{}", file.display());
    refused(&bed, &start, &["config.toml", "refused"]);
    bed.run_detached("fine");
    bed.wait_status("fine", "RUNNING");
}

#[test]
fn slow_a_binary_that_hangs_at_its_start_is_killed() {
    if std::env::var_os("WHERRY_SLOW").is_none() {
        return;
    }
    let bed = Bed::new(Shims::Ours);
    let start = "echo thinking; echo $$ > $0.pid; sleep 1000";
    let shim = script(&bed, start);
    let started = Instant::now();
    let client = bed
        .ctr_command()
        .args(["run", "-d", "--null-io", "--runtime", &shim, "--rootfs"])
        .arg(bed.rootfs())
        .args(["odd", "/bin/sh"])
        .stderr(fs::File::create(bed.dir.path().join("said")).unwrap())
        .spawn();
    let mut client = client.unwrap();
    bed.run_detached("fine");
    let said = || fs::read_to_string(bed.dir.path().join("said")).unwrap();
    while client.try_wait().unwrap().is_none() {
        assert!(
            started.elapsed() < Duration::from_secs(50),
            "it hangs: {}",
            said()
        );
        thread::park_timeout(Duration::from_millis(50));
    }
    assert!(
        said().contains("took longer than 30s") && said().contains("thinking"),
        "{}",
        said()
    );
    let pid = fs::read_to_string(format!("{shim}.pid")).unwrap();
    assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists());
    assert!(!bed.bundle("odd").exists());
}

/// What the played shim does with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Play {
    /// As a shim should.
    Right,
    /// No answer.
    Hang,
    /// The connection ends.
    Close,
    /// Bytes that are no frame.
    Noise,
    /// A frame that holds no answer.
    Rubbish,
    /// An answer whose message is none.
    Nonsense,
    /// A refusal with a code that does not exist.
    OddCode,
}

/// A shim that the test plays: how it takes each call can be changed at any time.
struct Player {
    address: String,
    plays: Arc<Mutex<Vec<(&'static str, Play)>>>,
    streams: Arc<Mutex<Vec<UnixStream>>>,
}

impl Player {
    fn new(bed: &Bed) -> Self {
        let path = bed.dir.path().join("played.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let plays: Arc<Mutex<Vec<_>>> = Arc::default();
        let streams: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
        let (of_thread, kept) = (plays.clone(), streams.clone());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                let plays = of_thread.clone();
                thread::spawn(move || play(stream, &plays));
            }
        });
        Self {
            address: format!("unix://{}", path.display()),
            plays,
            streams,
        }
    }

    fn set(&self, plays: &[(&'static str, Play)]) {
        *self.plays.lock().unwrap() = plays.to_vec();
    }

    /// The shim dies.
    fn die(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Answers until the connection ends. Gives it up when it is told to.
fn play(mut stream: UnixStream, plays: &Mutex<Vec<(&'static str, Play)>>) -> Option<()> {
    loop {
        let mut header = [0; 10];
        stream.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes(header[..4].try_into().unwrap());
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).ok()?;
        let request = Request::parse_from_bytes(&payload).unwrap();
        let plays = plays.lock().unwrap().clone();
        let found = plays.iter().find(|(method, _)| *method == request.method);
        let mut response = Response::new();
        match found.map_or(Play::Right, |(_, play)| *play) {
            Play::Right => response.payload = right(&request.method),
            Play::Hang => continue,
            Play::Close => {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return None;
            }
            Play::Noise => {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok()?;
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return None;
            }
            Play::Rubbish => {
                let mut frame = header;
                frame[..4].copy_from_slice(&3_u32.to_be_bytes());
                frame[8] = 2;
                stream.write_all(&[&frame[..], &[0xff; 3]].concat()).ok()?;
                continue;
            }
            Play::Nonsense => response.payload = vec![0xff; 5],
            Play::OddCode => {
                response.mut_status().message = "odd".into();
                response.mut_status().code = protobuf::EnumOrUnknown::from_i32(77);
            }
        }
        if response.payload.is_empty() && !response.has_status() {
            response.mut_status().set_code(Code::OK);
        }
        let message = response.write_to_bytes().unwrap();
        let length = u32::try_from(message.len()).unwrap();
        header[..4].copy_from_slice(&length.to_be_bytes());
        header[8] = 2;
        stream.write_all(&[&header[..], &message].concat()).ok()?;
    }
}

fn right(method: &str) -> Vec<u8> {
    match method {
        "Create" => CreateTaskResponse {
            pid: 4_000_000,
            ..Default::default()
        }
        .write_to_bytes(),
        "State" => StateResponse {
            pid: 4_000_000,
            status: Status::STOPPED.into(),
            exit_status: 7,
            ..Default::default()
        }
        .write_to_bytes(),
        _ => Ok(Vec::new()),
    }
    .unwrap()
}

#[test]
fn a_shim_that_answers_rubbish_costs_its_own_task_only() {
    let bed = Bed::new(Shims::Ours);
    bed.run_detached("fine");
    let player = Player::new(&bed);
    let shim = script(&bed, &format!("echo {}", player.address));
    let create = |play, wanted: &str| {
        player.set(&[("Create", play)]);
        let ran = try_run(&bed, &shim, "odd");
        assert_ne!(ran.code, Some(0), "{play:?}");
        assert!(ran.stderr.contains(wanted), "{play:?}: {}", ran.stderr);
        assert!(!bed.bundle("odd").exists(), "{play:?}");
        bed.ctr(&["c", "rm", "odd"]);
    };
    create(Play::Close, "its shim has ended");
    create(Play::Noise, "its shim has ended");
    create(Play::Rubbish, "makes no sense");
    create(Play::Nonsense, "task odd");
    create(Play::OddCode, "odd");

    player.set(&[]);
    try_run(&bed, &shim, "odd").ok();
    assert_eq!(bed.task("odd").unwrap().1, "STOPPED");
    for play in [Play::Rubbish, Play::Nonsense, Play::OddCode] {
        player.set(&[("State", play), ("Delete", play)]);
        assert_eq!(
            bed.task("odd"),
            None,
            "{play:?}: it cannot be said how it is"
        );
        assert_eq!(bed.task("fine").unwrap().1, "RUNNING", "{play:?}");
        assert_ne!(bed.ctr(&["task", "rm", "odd"]).code, Some(0), "{play:?}");
    }
    // A shim that does not end when it should is not waited for for ever.
    player.set(&[("Shutdown", Play::Hang)]);
    let started = Instant::now();
    bed.ctr(&["task", "rm", "odd"]);
    assert!(started.elapsed() < Duration::from_secs(8));
    assert!(!bed.bundle("odd").exists());
    assert_eq!(bed.task("odd"), None);
    bed.wait_status("fine", "RUNNING");
}

#[test]
fn a_shim_that_hangs_at_a_call_is_given_up_when_it_dies() {
    let bed = Bed::new(Shims::Ours);
    bed.run_detached("fine");
    let player = Player::new(&bed);
    let shim = script(&bed, &format!("echo {}", player.address));
    player.set(&[("State", Play::Hang), ("Delete", Play::Hang)]);
    let rootfs = bed.rootfs();
    bed.ctr(&[
        "run",
        "-d",
        "--null-io",
        "--runtime",
        &shim,
        "--rootfs",
        &rootfs,
        "odd",
        "/bin/sh",
    ]);
    for limit in [4, 1] {
        let started = Instant::now();
        assert_eq!(bed.task("fine").unwrap().1, "RUNNING");
        let took = started.elapsed();
        assert!(
            took < Duration::from_secs(limit),
            "{took:?}: known to be silent"
        );
    }
    // Its client may go; the deletion goes on until the shim dies, and the rest is cleaned up.
    let mut client = bed.ctr_command();
    let mut client = crate::common::quietly(client.args(["task", "rm", "odd"]));
    let _ = client.kill();
    let _ = client.wait();
    player.die();
    eventually("it is cleaned up", || !bed.bundle("odd").exists());
    assert_eq!(bed.task("odd"), None);

    // One that hangs at Create has its id until it dies, or until nobody waits for it.
    bed.ctr(&["c", "rm", "odd"]);
    player.set(&[("Create", Play::Hang)]);
    let mut client = bed.ctr_command();
    client.args(["run", "-d", "--null-io", "--runtime", &shim, "--rootfs"]);
    let mut client = crate::common::quietly(client.arg(&rootfs).args(["odd", "/bin/sh"]));
    eventually("it is called", || {
        bed.bundle("odd").join("bootstrap.json").exists()
    });
    let _ = client.kill();
    let _ = client.wait();
    eventually("it is given up", || !bed.bundle("odd").exists());
    bed.ctr(&["c", "rm", "odd"]);
    player.set(&[("Create", Play::Hang)]);
    let mut client = bed.ctr_command();
    client.args(["run", "-d", "--null-io", "--runtime", &shim, "--rootfs"]);
    let mut client = crate::common::quietly(client.arg(&rootfs).args(["odd", "/bin/sh"]));
    eventually("it is called", || {
        bed.bundle("odd").join("bootstrap.json").exists()
    });
    assert_eq!(bed.task("fine").unwrap().1, "RUNNING");
    player.die();
    eventually("the client is told", || {
        client.try_wait().unwrap().is_some()
    });
    eventually("it is cleaned up", || !bed.bundle("odd").exists());
    player.set(&[]);
    bed.ctr(&["c", "rm", "odd"]);
    try_run(&bed, &shim, "odd").ok();
    player.die();
    eventually("it is cleaned up again", || !bed.bundle("odd").exists());
}
