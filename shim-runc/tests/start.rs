//! The actions that containerd runs as commands (`start`, `delete`, `-v`, bad command lines), as
//! black boxes and, where a Go shim is installed, side by side with it.

#![expect(
    clippy::disallowed_methods,
    reason = "a test process has no reaper, and waits for its own children"
)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests, where a failure is a panic and a skip is said aloud"
)]

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use protobuf::{Message, MessageField};
use task_api::bootstrap::{BootstrapParams, BootstrapResult, Extension};
use task_api::options::{Options, RUNC_OPTIONS};
use task_api::task::{Any, DeleteResponse};

const V1: &str = env!("CARGO_BIN_EXE_containerd-shim-runc-v1");
const V2: &str = env!("CARGO_BIN_EXE_containerd-shim-runc-v2");
const GO_V1: &str = "/usr/bin/containerd-shim-runc-v1";
const GO_V2: &str = "/usr/bin/containerd-shim-runc-v2";
const GRPC: &str = "/run/wherry-test//containerd.sock";

/// A namespace of its own with one bundle, and all that a start may leave behind.
struct Bed {
    dir: tempfile::TempDir,
    namespace: String,
    id: String,
}

impl Bed {
    fn new(config: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("wherry-{}-{count}", std::process::id());
        let bed = Self {
            dir: tempfile::tempdir().unwrap(),
            namespace,
            id: format!("c{count}"),
        };
        std::fs::create_dir(bed.bundle()).unwrap();
        std::fs::write(bed.bundle().join("config.json"), config).unwrap();
        bed
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join(&self.id)
    }

    fn command(&self, binary: &str, action: &str) -> Command {
        let mut command = Command::new(binary);
        command.args([
            "-namespace",
            &self.namespace,
            "-id",
            &self.id,
            "-address",
            GRPC,
        ]);
        command.args(["-publish-binary", "/bin/true", action]);
        command.current_dir(self.bundle());
        command
    }

    fn run(&self, binary: &str, action: &str, stdin: &[u8]) -> Output {
        feed(&mut self.command(binary, action), stdin)
    }

    fn start(&self, binary: &str) -> String {
        let mut output = self.run(binary, "start", b"");
        // On a busy machine the Go shim's served process may end before its score is set.
        for _ in 0..3 {
            let text = String::from_utf8_lossy(&output.stderr);
            if ![V1, V2].contains(&binary) && text.contains("oom_score_adj: no such file") {
                output = self.run(binary, "start", b"");
            }
        }
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stderr, b"", "stderr is a part of the reply");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, binary: &str, stdin: &[u8]) -> String {
        let output = self.run(binary, "start", stdin);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(output.stdout, b"");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The processes that serve this bed.
    fn shims(&self) -> Vec<i32> {
        let mine = |pid: &i32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words
                .split(|byte| *byte == 0)
                .any(|word| word == self.namespace.as_bytes())
        };
        let pids = std::fs::read_dir("/proc").unwrap();
        let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(mine).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for pid in self.shims() {
            let _ = sys::pidfd::kill(pid, libc::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.shims().is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let address = std::fs::read_to_string(self.bundle().join("address")).unwrap_or_default();
        if let Some(path) = address.strip_prefix("unix://") {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn feed(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The action may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn socket_of(address: &str) -> PathBuf {
    PathBuf::from(address.strip_prefix("unix://").unwrap())
}

fn installed(binary: &str) -> bool {
    let there = Path::new(binary).exists();
    if !there {
        eprintln!("SKIPPED: {binary} is not installed");
    }
    there
}

fn annotated(name: &str, value: &str) -> String {
    format!(r#"{{"ociVersion":"1.0.2","annotations":{{"{name}":"{value}"}}}}"#)
}

#[test]
fn the_address_is_the_one_that_the_go_shim_prints() {
    for (go, ours, config) in [
        (GO_V2, V2, "{}".to_owned()),
        (GO_V2, V2, annotated("io.containerd.runc.v2.group", "g1")),
        (GO_V2, V2, annotated("io.kubernetes.cri.sandbox-id", "p1")),
        (GO_V1, V1, annotated("io.containerd.runc.v2.group", "g1")),
    ] {
        if !installed(go) {
            continue;
        }
        let bed = Bed::new(&config);
        let theirs = bed.start(go);
        let files = |name: &str| std::fs::read(bed.bundle().join(name)).ok();
        let address = files("address");
        // Without a log FIFO the Go shim does not live; its socket stays, dead.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !bed.shims().is_empty() {
            assert!(Instant::now() < deadline, "the Go shim lives on");
            std::thread::yield_now();
        }
        assert_eq!(bed.start(ours), theirs, "{config}");
        assert_eq!(files("address"), address, "{config}");
        assert_eq!(files("shim.pid").is_some(), ours == V1);
        let socket = socket_of(&theirs);
        let found = socket.symlink_metadata().unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn a_groups_live_socket_is_given_to_its_next_container() {
    let bed = Bed::new(&annotated("io.kubernetes.cri.sandbox-id", "pod"));
    let path =
        shim_common::socket::path(Path::new("/run/containerd/s"), GRPC, &bed.namespace, "pod");
    let live = UnixListener::bind(&path).unwrap();
    assert_eq!(bed.start(V2), format!("unix://{}", path.display()));
    assert!(bed.shims().is_empty(), "a second shim");
    // Daemons up to 1.7 need the file for this container as well.
    let address = std::fs::read_to_string(bed.bundle().join("address")).unwrap();
    assert_eq!(socket_of(&address), path);
    // Nor does the clean-up of one container take the socket from the others.
    assert!(bed.run(V2, "delete", b"").status.success());
    assert!(path.exists());
    drop(live);
    assert!(bed.run(V2, "delete", b"").status.success());
    assert!(!path.exists(), "a dead socket goes");
}

#[test]
fn a_caller_with_bootstrap_parameters_gets_a_protobuf_result() {
    let bed = Bed::new("{}");
    let sockets = tempfile::Builder::new().prefix("s").tempdir().unwrap();
    let cgroup = format!("/{}", bed.namespace);
    let options = Options {
        shim_cgroup: cgroup.clone(),
        ..Options::default()
    };
    let params = BootstrapParams {
        instance_id: bed.id.clone(),
        namespace: bed.namespace.clone(),
        containerd_grpc_address: GRPC.into(),
        socket_dir: Some(sockets.path().to_str().unwrap().to_owned()),
        extensions: vec![Extension {
            value: MessageField::some(Any {
                type_url: RUNC_OPTIONS.into(),
                value: options.write_to_bytes().unwrap(),
                ..Any::default()
            }),
            ..Extension::default()
        }],
        ..BootstrapParams::default()
    };
    let output = bed.run(V2, "start", &params.write_to_bytes().unwrap());
    assert!(output.status.success(), "{output:?}");
    let result = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    let socket = socket_of(&result.address);
    assert_eq!(socket.parent(), Some(sockets.path()));
    let link = std::fs::read_link(bed.bundle().join("s")).unwrap();
    assert_eq!(link, sockets.path());
    // The option put the shim into its cgroup, in every hierarchy there is.
    let roots = shim_common::start::shim_cgroup::hierarchies().unwrap();
    for pid in bed.shims() {
        sys::pidfd::kill(pid, libc::SIGKILL).unwrap();
    }
    for root in roots {
        let dir = root.join(&cgroup[1..]);
        assert!(dir.is_dir(), "{}", dir.display());
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = std::fs::remove_dir(&dir) {
            assert!(Instant::now() < deadline, "{}: {error}", dir.display());
            std::thread::yield_now();
        }
    }
    let output = bed.run(V2, "delete", b"");
    assert!(output.status.success() && !socket.exists(), "{output:?}");
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let bed = Bed::new("{}");
    let socket = shim_common::socket::path(
        Path::new("/run/containerd/s"),
        GRPC,
        &bed.namespace,
        &bed.id,
    );
    let config = bed.bundle().join("config.json");

    std::fs::write(&config, "{\"annotations\":").unwrap();
    let text = bed.refused(V2, b"");
    assert!(
        text.starts_with("io.containerd.runc.v2: malformed spec "),
        "{text}"
    );
    assert!(text.contains(config.to_str().unwrap()), "{text}");

    std::fs::remove_file(&config).unwrap();
    let text = bed.refused(V1, b"");
    assert!(text.starts_with("io.containerd.runc.v1: read "), "{text}");

    std::fs::write(&config, "{}").unwrap();
    let text = bed.refused(V2, b"\xff\xff");
    assert!(text.contains("stdin holds neither"), "{text}");
    let text = bed.refused(V2, &vec![b' '; 5 << 20]);
    assert!(text.contains("stdin holds more than"), "{text}");

    // This one fails when the shim runs already.
    std::fs::create_dir_all(bed.bundle().join("address/full")).unwrap();
    let text = bed.refused(V2, b"");
    assert!(text.contains("write the shim's address"), "{text}");
    std::fs::remove_dir_all(bed.bundle().join("address")).unwrap();

    assert!(!socket.exists());
    assert!(bed.shims().is_empty());
}

#[test]
fn ids_that_lead_out_of_their_folder_are_refused() {
    let mut bed = Bed::new("{}");
    let bundle = bed.bundle();
    for id in ["", "..", "../x", "a/b", &"x".repeat(300)] {
        bed.id = id.to_owned();
        for action in ["start", "delete"] {
            let output = feed(bed.command(V2, action).current_dir(&bundle), b"");
            assert_eq!(output.status.code(), Some(1), "{id} {output:?}");
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.contains("container id") && text.len() < 300, "{text}");
        }
    }
}

#[test]
fn a_delete_with_nothing_left_reports_the_pid_and_137() {
    let bed = Bed::new("{}");
    let delete = |expected: u32| {
        let output = bed.run(V2, "delete", b"");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stderr, b"");
        let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
        assert_eq!((response.pid, response.exit_status), (expected, 137));
        assert!(response.exited_at.seconds > 1_700_000_000);
    };
    delete(0);
    std::fs::write(bed.bundle().join("init.pid"), "4194000").unwrap();
    delete(4_194_000);
}

#[test]
fn a_command_line_is_answered_with_the_exit_code_of_the_go_shim() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["-v"] as &[&str],
        &["-foo"],
        &["-h"],
        &["-debug=maybe"],
        &["-id"],
        &[],
        &["start"],
        &["-namespace", ""],
    ] {
        let run = |binary: &str| {
            feed(
                Command::new(binary)
                    .args(args.iter().map(OsStr::new))
                    .current_dir(&dir),
                b"",
            )
        };
        let ours = run(V2);
        if installed(GO_V2) {
            let theirs = run(GO_V2);
            assert_eq!(ours.status.code(), theirs.status.code(), "{args:?}");
            assert_eq!(ours.stdout.is_empty(), theirs.stdout.is_empty(), "{args:?}");
            let first = |output: &Output| {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                text.lines().next().unwrap_or_default().replace(GO_V2, V2)
            };
            assert_eq!(first(&ours), first(&theirs), "{args:?}");
        }
    }
}
