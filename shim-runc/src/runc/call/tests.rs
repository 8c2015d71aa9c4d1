//! Tests of calls of the runtime.

use super::super::command::{CreateArgs, ExecArgs, Runtime};
use super::super::{options::RuncOptions, pid_file, ps};
use super::*;
use std::os::unix::fs::PermissionsExt;

/// Held while a program is written and while one is started: a child that another test has
/// just forked would still hold the file open for writing, and executing it would fail.
static FILES: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn files() -> std::sync::MutexGuard<'static, ()> {
    FILES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn start(call: Call, stdio: ContainerStdio) -> Result<Running, RuntimeError> {
    let _files = files();
    call.start(&env(), Path::new("/"), stdio)
}

fn env() -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = std::env::vars_os().filter(|(k, _)| k != STRIPPED).collect();
    env.push((STRIPPED.into(), "/nowhere".into()));
    env
}

fn create_args<'a>(id: &'a str, bundle: &'a Path, pid_file: &'a Path) -> CreateArgs<'a> {
    CreateArgs {
        id,
        bundle,
        pid_file,
        console_socket: None,
        no_pivot_root: false,
        no_new_keyring: false,
    }
}

fn some_create(r: &Runtime) -> Call {
    r.create(&create_args("c", Path::new("/b"), Path::new("/b/init.pid")))
}

/// Runs a call to its end.
fn run(call: Call, stdio: ContainerStdio) -> Result<Output, RuntimeError> {
    let running = start(call, stdio)?;
    let exited = sys::wait::wait_timeout(&running.child, std::time::Duration::from_secs(20));
    let exited = exited.unwrap().expect("the runtime hangs");
    running.outcome(exited.status)
}

/// A runtime that is this shell script.
fn script(dir: &Path, text: &str) -> Runtime {
    let _files = files();
    let path = dir.join("odd");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary_name = path.to_str().unwrap().to_owned();
    Runtime::new(
        &RuncOptions {
            binary_name,
            ..Default::default()
        },
        "ns",
    )
}

#[test]
fn a_runtime_that_prints_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let r = script(dir.path(), "echo zork; echo oops >&2; exit 1");
    let text = run(some_create(&r), ContainerStdio::Collected).unwrap_err();
    let program = r.program.display();
    assert_eq!(
        text.message,
        format!(
            "OCI runtime create failed: unable to retrieve OCI runtime error (no log was \
             written): {program} did not terminate successfully: exit status 1: zork\noops"
        )
    );
}

#[test]
fn a_runtime_that_dies_by_signal_or_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let r = script(dir.path(), "kill -9 $$");
    let error = run(r.start("c"), ContainerStdio::Collected).unwrap_err();
    assert!(error.message.ends_with("exit status 137"), "{error}");

    let missing = Runtime {
        program: "/no/such/runc".into(),
        ..r.clone()
    };
    let error = run(missing.start("c"), ContainerStdio::Collected).unwrap_err();
    assert!(
        error
            .message
            .contains("fork/exec /no/such/runc: no such file"),
        "{error}"
    );
    let missing = Runtime {
        program: "no-such-runc".into(),
        ..r
    };
    let error = run(missing.start("c"), ContainerStdio::Collected).unwrap_err();
    let want = "exec: \"no-such-runc\": executable file not found in $PATH";
    assert!(error.message.ends_with(want), "{error}");
}

#[test]
fn the_environment_is_passed_less_what_is_stripped() {
    let dir = tempfile::tempdir().unwrap();
    // The working directory and the process group too: a group of its own has its own number.
    let print = "pwd; echo ${NOTIFY_SOCKET-none}; [ $(ps -o pgid= -p $$) = $$ ] && echo group";
    let r = script(dir.path(), print);
    let output = run(r.features(), ContainerStdio::Collected).unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), "/\nnone\ngroup\n");
    let path = environment(&[("PATH".into(), "/a:/b".into())], Some(Path::new("/c")));
    assert_eq!(path, [("PATH".into(), "/c:/a:/b".into())]);
    assert_eq!(
        environment(&[], Some(Path::new("/c"))),
        [("PATH".into(), "/c".into())]
    );
}

#[test]
fn what_is_read_of_a_talkative_runtime_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let script_text = r#"
        for a in "$@"; do [ "$p" = --log ] && log="$a"; p="$a"; done
        i=0; while [ $i -lt 3000 ]; do
            echo '{"level":"info","msg":"0123456789012345678901234567890123456789"}' >> "$log"
            echo 0123456789; i=$((i+1))
        done
        echo '{"level":"error","msg":"the end"}' >> "$log"; echo "last words"; exit 1"#;
    let r = script(dir.path(), script_text);
    let error = run(r.start("c"), ContainerStdio::Collected).unwrap_err();
    assert_eq!(error.message, "OCI runtime start failed: the end");
    let error = run(r.kill("c", 9, false), ContainerStdio::Collected).unwrap_err();
    assert!(
        error.message.len() < OUTPUT_LIMIT + 200,
        "{} bytes",
        error.message.len()
    );
    assert!(error.message.contains("last words"));
}

#[test]
fn output_goes_to_the_process_streams() {
    let dir = tempfile::tempdir().unwrap();
    let r = script(dir.path(), "cat; echo err >&2");
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let (input, writer) = sys::pipe::pipe().unwrap();
    let create = |p| OwnedFd::from(File::create(p).unwrap());
    let stdio = ContainerStdio::Process {
        stdin: Some(input),
        stdout: Some(create(&out)),
        stderr: Some(create(&err)),
    };
    let call = some_create(&r);
    let running = start(call, stdio).unwrap();
    io::Write::write_all(&mut File::from(writer), b"hello").unwrap();
    let exited = sys::wait::wait_pid(running.child.pid).unwrap();
    assert!(running.outcome(exited.status).unwrap().is_empty());
    assert_eq!(std::fs::read(out).unwrap(), b"hello");
    assert_eq!(std::fs::read(err).unwrap(), b"err\n");
}

/// A bundle whose process is `args` on the busybox of the host; copied from the host.
fn bundle(dir: &Path, args: &[&str]) {
    let _files = files();
    let bin = dir.join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for sub in ["proc", "dev"] {
        std::fs::create_dir_all(dir.join("rootfs").join(sub)).unwrap();
    }
    std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]}
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn a_container_under_the_real_runc() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("state").to_str().unwrap().to_owned();
    let r = Runtime::new(
        &RuncOptions {
            root,
            ..Default::default()
        },
        "ns",
    );
    let id = format!("wherry-driver-{}", std::process::id());
    bundle(dir.path(), &["/bin/nosuch"]);
    let pid_path = dir.path().join("init.pid");
    let args = create_args(&id, dir.path(), &pid_path);
    let nothing = || ContainerStdio::Process {
        stdin: None,
        stdout: None,
        stderr: None,
    };
    let error = run(r.create(&args), nothing()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::ExecutableNotFound, "{error}");

    bundle(dir.path(), &["/bin/busybox", "sleep", "100"]);
    run(r.create(&args), nothing()).unwrap();
    let pid = pid_file::read(&pid_path).unwrap();
    run(r.start(&id), ContainerStdio::Collected).unwrap();
    let pids = ps::parse(&run(r.ps(&id), ContainerStdio::Collected).unwrap()).unwrap();
    assert_eq!(pids, [pid]);
    assert!(r.state_dir(&id).is_dir());

    let process = br#"{"args":["/bin/busybox","nosuch"],"cwd":"/","user":{"uid":0,"gid":0}}"#;
    let exec_pid = dir.path().join("e.pid");
    let exec = ExecArgs {
        id: &id,
        process,
        pid_file: &exec_pid,
        console_socket: None,
    };
    run(r.exec(&exec).unwrap(), nothing()).unwrap();
    pid_file::read(&exec_pid).unwrap();
    let exec = ExecArgs {
        process: br#"{"args":["/no"],"cwd":"/"}"#,
        ..exec
    };
    let error = run(r.exec(&exec).unwrap(), nothing()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::ExecutableNotFound, "{error}");

    let limits = br#"{"pids":{"limit":77}}"#;
    run(r.update(&id, limits).unwrap(), ContainerStdio::Collected).unwrap();
    run(r.pause(&id), ContainerStdio::Collected).unwrap();
    run(r.resume(&id), ContainerStdio::Collected).unwrap();
    let features = run(r.features(), ContainerStdio::Collected).unwrap();
    serde_json::from_slice::<serde_json::Value>(&features).unwrap();

    run(r.delete(&id, true), ContainerStdio::Collected).unwrap();
    run(r.delete(&id, false), ContainerStdio::Collected).unwrap();
    let error = run(r.kill(&id, 9, false), ContainerStdio::Collected).unwrap_err();
    assert!(
        error.not_found && error.message == "no such container",
        "{error}"
    );
}
