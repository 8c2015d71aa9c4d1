//! Tests of the runtime's command lines.

use super::*;

fn runtime(systemd_cgroup: bool) -> Runtime {
    Runtime::new(
        &RuncOptions {
            systemd_cgroup,
            ..Default::default()
        },
        "ns",
    )
}

fn line(call: &Call) -> String {
    let argv = call.argv(Path::new("LOG"));
    argv.iter()
        .map(|a| a.to_str().unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}

const GLOBALS: &str = "runc --root /run/containerd/runc/ns --log LOG --log-format json";

#[test]
fn plain_commands() {
    let r = runtime(false);
    for (call, want) in [
        (r.start("c"), "start c"),
        (r.kill("c", 9, false), "kill c 9"),
        (r.kill("c", 34, true), "kill --all c 34"),
        (r.delete("c", false), "delete c"),
        (r.delete("c", true), "delete --force c"),
        (r.pause("c"), "pause c"),
        (r.resume("c"), "resume c"),
        (r.ps("c"), "ps --format json c"),
    ] {
        assert_eq!(line(&call), format!("{GLOBALS} {want}"));
    }
    assert_eq!(line(&r.features()), "runc features");
    assert_eq!(
        line(&runtime(true).start("c")),
        "runc --root /run/containerd/runc/ns --systemd-cgroup --log LOG --log-format json \
         start c"
    );
}

#[test]
fn create_takes_every_option() {
    let mut args = CreateArgs {
        id: "c",
        bundle: Path::new("/b"),
        pid_file: Path::new("/b/init.pid"),
        console_socket: None,
        no_pivot_root: false,
        no_new_keyring: false,
    };
    let r = runtime(false);
    assert_eq!(
        line(&r.create(&args)),
        format!("{GLOBALS} create --bundle /b --pid-file /b/init.pid c")
    );
    args.console_socket = Some(Path::new("/s"));
    args.no_pivot_root = true;
    args.no_new_keyring = true;
    assert_eq!(
        line(&r.create(&args)),
        format!(
            "{GLOBALS} create --bundle /b --pid-file /b/init.pid --console-socket /s \
             --no-pivot --no-new-keyring c"
        )
    );
}

#[test]
fn exec_and_update_pass_memory_files_untouched() {
    let r = runtime(false);
    let exec = ExecArgs {
        id: "c",
        process: b"{\"odd\":1}",
        pid_file: Path::new("/b/e.pid"),
        console_socket: Some(Path::new("/s")),
    };
    let call = r.exec(&exec).unwrap();
    let path = sys::memfd::proc_path(call.input.as_ref().unwrap().as_fd());
    assert_eq!(
        line(&call),
        format!(
            "{GLOBALS} exec --process {} --console-socket /s --detach --pid-file /b/e.pid c",
            path.display()
        )
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"{\"odd\":1}");

    let call = r.update("c", b"{}").unwrap();
    let path = sys::memfd::proc_path(call.input.as_ref().unwrap().as_fd());
    assert_eq!(
        line(&call),
        format!("{GLOBALS} update --resources {} c", path.display())
    );
}

#[test]
fn checkpoint_and_restore() {
    let names = ["network".to_owned(), "uts".to_owned()];
    let mut r = runtime(false);
    let mut args = CheckpointArgs {
        id: "c",
        image_path: Path::new("/i"),
        work_path: Path::new("/w"),
        parent_path: None,
        leave_running: true,
        open_tcp: false,
        external_unix_sockets: false,
        terminal: false,
        file_locks: false,
        empty_namespaces: &[],
    };
    assert_eq!(
        line(&r.checkpoint(&args)),
        format!("{GLOBALS} checkpoint --image-path /i --work-path /w --leave-running c")
    );
    args = CheckpointArgs {
        parent_path: Some(Path::new("/p")),
        leave_running: false,
        open_tcp: true,
        external_unix_sockets: true,
        terminal: true,
        file_locks: true,
        empty_namespaces: &names,
        ..args
    };
    assert_eq!(
        line(&r.checkpoint(&args)),
        format!(
            "{GLOBALS} checkpoint --image-path /i --work-path /w --parent-path /p \
             --tcp-established --ext-unix-sk --shell-job --file-locks --empty-ns network \
             --empty-ns uts c"
        )
    );
    let restore = RestoreArgs {
        id: "c",
        bundle: Path::new("/b"),
        image_path: Path::new("/i"),
        work_path: Path::new("/w"),
        pid_file: Path::new("/b/init.pid"),
        parent_path: None,
        console_socket: None,
        no_pivot_root: true,
    };
    let want = "restore --image-path /i --work-path /w --detach --pid-file /b/init.pid \
                --no-pivot --no-subreaper --bundle /b c";
    assert_eq!(line(&r.restore(&restore)), format!("{GLOBALS} {want}"));

    // criu's path: by PATH where the name allows, else by runc's flag; only where criu runs.
    r.criu = Some("/opt/new/criu".into());
    let call = r.restore(&restore);
    assert_eq!(call.path_first.as_deref(), Some(Path::new("/opt/new")));
    assert_eq!(line(&call), format!("{GLOBALS} {want}"));
    assert_eq!(r.start("c").path_first, None);
    r.criu = Some("/opt/criu-4".into());
    assert!(line(&r.restore(&restore)).contains(" --criu /opt/criu-4 "));
}

#[test]
fn the_kind_follows_the_file_name() {
    use RuntimeKind::*;
    for (name, kind) in [
        ("runc", Runc),
        ("/usr/bin/runc", Runc),
        ("runc.amd64", Runc),
        ("crun", Crun),
        ("/opt/crun.real", Crun),
        ("youki", Youki),
        ("nvidia-container-runtime", Other),
        ("runsc", Other),
        ("runc-wrapper", Other),
        ("/", Other),
        ("", Other),
    ] {
        assert_eq!(RuntimeKind::of(Path::new(name)), kind, "{name}");
    }
    let options = RuncOptions {
        binary_name: "/x/crun".into(),
        root: "/r".into(),
        ..Default::default()
    };
    let r = Runtime::new(&options, "k8s.io");
    assert_eq!(
        (r.kind, r.state_dir("c")),
        (Crun, PathBuf::from("/r/k8s.io/c"))
    );
}
