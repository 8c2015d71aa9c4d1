//! What a daemon does as it is told: sockets, plugins, limits, its service manager.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Bed, Shims, eventually, run};
use crate::{WHERRYD, text, wherryd};

fn socket(name: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(name).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket
}

#[test]
fn systemd_is_told_that_it_is_ready_and_that_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let name = format!("wherryd-test-{}", std::process::id());
    let places = [
        (
            text(&path).to_owned(),
            SocketAddr::from_pathname(&path).unwrap(),
        ),
        (
            format!("@{name}"),
            SocketAddr::from_abstract_name(&name).unwrap(),
        ),
    ];
    for (variable, address) in places {
        let socket = socket(&address);
        let received = || {
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let base = dir.path().join("base");
        let mut command = Command::new(WHERRYD);
        command
            .arg("--base")
            .arg(&base)
            .env("NOTIFY_SOCKET", &variable);
        let mut daemon = command.stdin(Stdio::null()).spawn().unwrap();
        assert_eq!(received(), "READY=1");
        // What is ready answers.
        let socket = base.join("wherryd.sock");
        run(Command::new("ctr").args(["-a", text(&socket), "version"])).ok();
        run(Command::new("kill").arg(daemon.id().to_string())).ok();
        assert_eq!(received(), "STOPPING=1");
        assert!(daemon.wait().unwrap().success());
    }
}

#[test]
fn the_unit_file_is_one() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: there is no systemd-analyze here");
        return;
    }
    let unit = include_str!("../../../dist/wherryd.service");
    for line in [
        "Type=notify",
        "Delegate=yes",
        "KillMode=process",
        "LimitNOFILE=infinity",
    ] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wherryd.service");
    let program = Path::new(WHERRYD).parent().unwrap();
    fs::write(&file, unit.replace("@BINDIR@", text(program))).unwrap();
    let verified = run(Command::new("systemd-analyze").arg("verify").arg(&file));
    let about_us = |line: &&str| line.contains("wherryd");
    let said: Vec<&str> = verified.stderr.lines().filter(about_us).collect();
    assert_eq!(said, Vec::<&str>::new());
}

#[test]
fn sockets_cgroup_temp_and_log_are_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let cgroup = format!("/wherryd-test-{}", std::process::id());
    let (temp, ttrpc) = (dir.path().join("temp"), dir.path().join("other.ttrpc"));
    let config = format!(
        "version = 2\ntemp = '{}'\noom_score = 7\n[grpc]\ngid = 1\n[ttrpc]\naddress = '{}'\n\
         gid = 2\n[cgroup]\npath = '{cgroup}'\n[debug]\nformat = 'json'\n",
        text(&temp),
        text(&ttrpc)
    );
    let bed = Bed::with_config(Shims::Ours, &config);
    let group = |path: &Path| std::os::unix::fs::MetadataExt::gid(&fs::metadata(path).unwrap());
    assert_eq!((group(&bed.address()), group(&ttrpc)), (1, 2));
    assert!(temp.is_dir());
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", bed.pid())).unwrap();
    assert_eq!(of("oom_score_adj").trim(), "7");
    let joined = of("cgroup")
        .lines()
        .filter(|line| line.ends_with(&cgroup))
        .count();
    assert!(joined >= 1, "{}", of("cgroup"));
    for line in bed.log().lines() {
        assert!(
            line.starts_with('{') && line.contains("\"level\""),
            "{line}"
        );
    }
    // Shims publish where they are told to, and have the daemon's folder of temporary files.
    bed.run_detached("c");
    let (pid, _) = bed.task("c").unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap();
    let environment = fs::read(format!("/proc/{}/environ", shim.trim())).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(
        environment.contains(&format!("TTRPC_ADDRESS={}\0", text(&ttrpc))),
        "{environment}"
    );
    assert!(
        environment.contains(&format!("TMPDIR={}\0", text(&temp))),
        "{environment}"
    );
    bed.ctr(&["task", "kill", "-s", "SIGTERM", "c"]).ok();
    bed.wait_status("c", "STOPPED");
    drop(bed);
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(controller.path().join(&cgroup[1..]));
    }
}

#[test]
fn plugins_that_are_disabled_are_not_served_and_those_required_must_be() {
    let bed = Bed::with_config(
        Shims::Ours,
        "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.leases']\n",
    );
    let refused = bed.ctr(&["leases", "ls"]);
    assert!(refused.stderr.contains("not implemented"), "{refused:?}");
    bed.ctr(&["c", "ls"]).ok();
    let file = bed.dir.path().join("c.toml");
    fs::write(
        &file,
        "version = 2\nrequired_plugins = ['io.containerd.grpc.v1.cri']\n",
    )
    .unwrap();
    let base = bed.dir.path().join("base");
    let refused = wherryd(&["--base", text(&base), "-c", text(&file)]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("io.containerd.grpc.v1.cri"),
        "{refused:?}"
    );
}

#[test]
fn snapshots_and_limits_of_shims_are_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("snapshots");
    let config = format!(
        "version = 2\n[plugins.'io.containerd.snapshotter.v1.native']\nroot_path = '{}'\n\
         [timeouts]\n'io.containerd.timeout.shim.load' = '20s'\n",
        text(&own)
    );
    let mut bed = Bed::with_config(Shims::Ours, &config);
    bed.ctr(&["snapshots", "--snapshotter", "native", "prepare", "s", ""])
        .ok();
    assert!(own.join("snapshots").is_dir());
    bed.ctr(&["snapshots", "--snapshotter", "native", "rm", "s"])
        .ok();

    // A shim that answers late is waited for as long as it may take.
    bed.run_detached("late");
    let task = bed.task("late").unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", task.0)).unwrap();
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim();
    let signal = |name: &str| run(Command::new("kill").args([name, shim])).ok();
    signal("-STOP");
    bed.kill();
    bed.start();
    let asked = std::time::Instant::now();
    // Twice what a shim has where the file says nothing.
    eventually("4 s have passed", || asked.elapsed().as_secs() >= 4);
    assert!(
        !bed.log().contains("/late: "),
        "it was not waited for: {}",
        bed.log()
    );
    signal("-CONT");
    eventually("it is found", || bed.log().contains("/late: shim found"));
    bed.wait_status("late", "RUNNING");
}
