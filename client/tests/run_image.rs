//! Containers run from images by `wherry`, under wherryd and under Debian's containerd.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests run programs, and end where something is not as it must be"
)]

mod common;

use std::fs;
use std::process::Command;

use common::images::{Layout, architecture, busybox_layer, simple};
use common::{Bed, on_both_engines, run};
use serde_json::{Value, json};

on_both_engines! {
    an_image_says_how_it_is_run
    the_command_line_says_otherwise
    a_container_has_a_snapshot_of_its_own
    what_cannot_run_leaves_nothing
    an_image_of_buildah_runs
    an_image_of_many_layers_runs
    a_packed_image_is_unpacked_when_it_is_run
}

fn import(bed: &Bed, layout: &Layout) {
    let archive = bed.path("import.tar");
    fs::write(&archive, layout.tar()).unwrap();
    bed.wherry(&["import", "-q", &archive]).ok();
}

/// An image that wants much.
fn wishful() -> Layout {
    let config = json!({
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["id -u; id -g; id -G; pwd; echo $GREETING; cat /platform"],
        "Env": ["GREETING=from the image", "PATH=/bin"],
        "WorkingDir": "/etc",
        "User": "app",
        "StopSignal": "SIGQUIT",
        "Labels": { "made.by": "hand" },
    });
    simple("docker.io/library/wishful:latest", &config)
}

fn an_image_says_how_it_is_run(bed: &mut Bed) {
    import(bed, &wishful());
    let told = bed.wherry(&["run", "--rm", "wishful"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    assert_eq!(
        told.stdout,
        "1000\n1001\n1001 7\n/etc\nfrom the image\nhere"
    );
    assert!(bed.all().is_empty());

    bed.wherry(&[
        "run",
        "-d",
        "--name",
        "bg",
        "--entrypoint",
        "sleep",
        "wishful",
        "1000",
    ])
    .ok();
    let inspected: Value = serde_json::from_str(&bed.wherry(&["inspect", "bg"]).ok()).unwrap();
    let record = &inspected[0]["container"];
    assert_eq!(record["image"], "docker.io/library/wishful:latest");
    assert_eq!(record["snapshot_key"], "bg");
    assert_eq!(record["labels"]["made.by"], "hand");
    assert_eq!(
        record["labels"]["io.containerd.image.config.stop-signal"],
        "SIGQUIT"
    );
    assert_eq!(record["spec"]["root"]["path"], "rootfs");
    let info = bed.ctr(&["containers", "info", "bg"]).ok();
    assert!(info.contains("wishful:latest"), "{info}");
    bed.wherry(&["rm", "-f", "bg"]).ok();
    // Without a word it is ended as the image wants.
    let script = "trap 'exit 33' QUIT; while :; do sleep 0.05; done";
    bed.wherry(&["run", "-d", "--name", "bg", "wishful", script])
        .ok();
    bed.wait_status("bg", "running");
    common::eventually("its trap is set, and it ends by it", || {
        bed.wherry(&["kill", "bg"]);
        bed.status("bg").as_deref() == Some("stopped")
    });
    assert!(
        [33, 131].contains(&bed.all()[0]["exit_status"].as_u64().unwrap()),
        "{:?}",
        bed.all()
    );
}

fn the_command_line_says_otherwise(bed: &mut Bed) {
    import(bed, &wishful());
    let ran = |flags: &[&str], words: &[&str]| {
        let line = [&["run", "--rm"], flags, &["wishful"], words].concat();
        bed.wherry(&line).ok()
    };
    assert_eq!(ran(&[], &["echo $GREETING"]), "from the image\n");
    assert_eq!(ran(&["-e", "GREETING=mine"], &["echo $GREETING"]), "mine\n");
    assert_eq!(ran(&["--entrypoint", "pwd", "-w", "/bin"], &[]), "/bin\n");
    assert_eq!(ran(&["--entrypoint", ""], &["echo", "plain"]), "plain\n");
    let root = ran(&["--user", "root"], &["id -u; id -G"]);
    assert_eq!(root, "0\n0 7\n");
    assert_eq!(ran(&["--user", "5:log"], &["id -u; id -g"]), "5\n7\n");
    let said = bed
        .wherry(&["run", "--rm", "--user", "nobody-here", "wishful"])
        .failed(125);
    assert!(said.contains("nobody-here"), "{said}");
    assert!(bed.all().is_empty());
}

fn a_container_has_a_snapshot_of_its_own(bed: &mut Bed) {
    import(bed, &wishful());
    let write = [
        "run",
        "--user",
        "root",
        "--name",
        "writer",
        "wishful",
        "echo mine > /platform",
    ];
    bed.wherry(&write).ok();
    assert_eq!(
        bed.wherry(&["run", "--rm", "wishful", "cat /platform"])
            .ok(),
        "here"
    );
    let snapshots = bed.ctr(&["snapshots", "ls"]).ok();
    assert!(
        snapshots.contains("writer") && snapshots.lines().count() == 3,
        "{snapshots}"
    );
    let said = bed.wherry(&write).failed(125);
    assert!(said.contains("a container writer already"), "{said}");
    // Nothing that is collected touches it.
    bed.wherry(&["prune", "-y"]).ok();
    bed.ctr(&["snapshots", "info", "writer"]).ok();
    bed.wherry(&["rm", "writer"]).ok();
    let snapshots = bed.ctr(&["snapshots", "ls"]).ok();
    assert_eq!(snapshots.lines().count(), 2, "{snapshots}");
    // A container that `ctr` made goes the same way.
    let name = "docker.io/library/wishful:latest";
    bed.ctr(&["containers", "create", name, "theirs"]).ok();
    bed.wherry(&["rm", "theirs"]).ok();
    assert_eq!(bed.ctr(&["snapshots", "ls"]).ok().lines().count(), 2);
}

fn what_cannot_run_leaves_nothing(bed: &mut Bed) {
    import(bed, &wishful());
    let said = bed.wherry(&["run", "--rm", "nothing-here"]).failed(125);
    assert!(said.contains("wherry pull nothing-here"), "{said}");
    bed.wherry(&["run", "--entrypoint", "/not-there", "wishful"])
        .failed(127);
    bed.wherry(&["run", "--entrypoint", "/etc", "wishful", "x"])
        .failed(126);
    bed.wherry(&["run", "--runtime", "io.containerd.nothing.v9", "wishful"])
        .failed(125);
    bed.wherry(&["run", "--snapshotter", "nothing", "wishful"])
        .failed(125);
    let said = bed
        .wherry(&["run", "--platform", "linux/s390x", "wishful"])
        .failed(125);
    assert!(said.contains("linux/s390x is asked for"), "{said}");
    assert!(bed.all().is_empty(), "{:?}", bed.all());
    assert_eq!(bed.ctr(&["snapshots", "ls"]).ok().lines().count(), 2);
    assert_eq!(bed.ctr(&["leases", "ls"]).ok().lines().count(), 1);
    let said = bed.wherry(&["run", "--rootfs", "/", "--platform", "linux/arm64", "sh"]);
    said.failed(125);
}

fn an_image_of_buildah_runs(bed: &mut Bed) {
    let store = bed.path("buildah");
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command
            .args(["--storage-driver", "vfs", "--root"])
            .arg(format!("{store}/root"));
        command.arg("--runroot").arg(format!("{store}/run"));
        run(command.args(arguments)).ok().trim().to_owned()
    };
    let container = buildah(&["from", "scratch"]);
    let rootfs = bed.rootfs();
    buildah(&["copy", &container, &rootfs, "/"]);
    buildah(&[
        "config",
        "--user",
        "app",
        "--workingdir",
        "/mnt",
        &container,
    ]);
    buildah(&[
        "config",
        "--entrypoint",
        r#"["sh","-c","id -u; pwd"]"#,
        &container,
    ]);
    let archive = bed.path("built.tar");
    let to = format!("oci-archive:{archive}:built:v1");
    buildah(&["commit", &container, &to]);
    buildah(&["rm", &container]);
    assert_eq!(
        bed.wherry(&["import", &archive]).ok(),
        "docker.io/library/built:v1\n"
    );
    assert_eq!(
        bed.wherry(&["run", "--rm", "built:v1"]).ok(),
        "1000\n/mnt\n"
    );
    let to = format!("docker-archive:{}:x.y/built:v2", bed.path("docker.tar"));
    run(Command::new("skopeo").args(["copy", &format!("oci-archive:{archive}"), &to])).ok();
    bed.wherry(&["import", &bed.path("docker.tar")]).ok();
    assert_eq!(
        bed.wherry(&["run", "--rm", "x.y/built:v2"]).ok(),
        "1000\n/mnt\n"
    );
    let _ = fs::remove_dir_all(store);
}

/// More layers than the text of one mount holds.
fn an_image_of_many_layers_runs(bed: &mut Bed) {
    let mut layout = Layout::new();
    let many = 60;
    let mut layers = vec![busybox_layer("here")];
    for number in 0..many {
        let name = format!("layer-{number}");
        layers.push(common::images::tarball([(name.as_str(), b"x".as_slice())]));
    }
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| common::images::digest(layer))
        .collect();
    let config = json!({
        "os": "linux", "architecture": architecture(), "config": { "User": "app", "Cmd": ["sh", "-c", "id -u; ls -d /layer-*"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = layout.blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| layout.blob(kind, layer))
        .collect();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let manifest = layout.blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    layout.name("x.y/many:1", manifest);
    import(bed, &layout);
    let told = bed.wherry(&["run", "--rm", "x.y/many:1"]).ok();
    assert_eq!(told.lines().count(), many + 1, "{told}");
    assert!(told.starts_with("1000\n"));
}

fn a_packed_image_is_unpacked_when_it_is_run(bed: &mut Bed) {
    let archive = bed.path("import.tar");
    fs::write(&archive, wishful().tar()).unwrap();
    bed.wherry(&["import", "--no-unpack", &archive]).ok();
    assert_eq!(bed.ctr(&["snapshots", "ls"]).ok().lines().count(), 1);
    let ran = bed.wherry(&["run", "--rm", "wishful", "pwd"]);
    assert_eq!(ran.stdout, "/etc\n");
    assert!(ran.stderr.contains("unpacked"), "{ran:?}");
    assert_eq!(bed.wherry(&["run", "--rm", "wishful", "pwd"]).stderr, "");
    // In another snapshotter, which the namespace's label names.
    let label = "containerd.io/defaults/snapshotter=native";
    bed.ctr(&["namespaces", "label", &bed.namespace, label])
        .ok();
    bed.wherry(&["run", "-q", "--rm", "wishful", "pwd"]).ok();
    let native = bed
        .ctr(&["snapshots", "--snapshotter", "native", "ls"])
        .ok();
    assert_eq!(native.lines().count(), 2, "{native}");
    bed.wherry(&["rmi", "wishful"]).ok();
    let native = bed
        .ctr(&["snapshots", "--snapshotter", "native", "ls"])
        .ok();
    assert_eq!(native.lines().count(), 1, "{native}");
}
