//! The root filesystem that containerd asks the shim to mount.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use containerd_shim_protos::api::Mount;
use wherry_integration::bundle::make_rootfs;
use wherry_integration::prelude::*;

fn mount(kind: &str, source: &Path, target: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::new();
    mount.type_ = kind.to_owned();
    mount.source = source.display().to_string();
    mount.target = target.to_owned();
    mount.options = options.iter().map(|&o| o.to_owned()).collect();
    mount
}

/// A bundle whose rootfs folder is empty and the layer that shall be mounted there.
fn with_layer(bed: &Bed, spec: &Spec) -> (Bundle, Shim, PathBuf) {
    let bundle = bed.bundle("c1", spec);
    let layer = bed.path("layer");
    std::fs::rename(bundle.rootfs(), &layer).unwrap();
    std::fs::create_dir(bundle.rootfs()).unwrap();
    let shim = bed.start(&bundle);
    (bundle, shim, layer)
}

#[test]
fn an_overlay_is_mounted_at_create_and_gone_after_delete() {
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &Spec::sh("echo hello > /written"));
    let (upper, work) = (bed.path("upper"), bed.path("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    let options = [
        format!("lowerdir={}", layer.display()),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
    ];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let mut request = bundle.create();
    request
        .rootfs
        .push(mount("overlay", Path::new("overlay"), "", &options));
    shim.task.create(&request).unwrap();
    assert_eq!(host::mounts_below(&bundle.path), [bundle.rootfs()]);
    shim.task.start("c1", "").unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 0);
    assert_eq!(
        std::fs::read_to_string(upper.join("written")).unwrap(),
        "hello\n"
    );
    shim.task.delete("c1", "").unwrap();
    assert!(host::mounts_below(&bundle.path).is_empty());
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn the_create_event_tells_the_mounts() {
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &Spec::sleeper());
    let mut request = bundle.create();
    request
        .rootfs
        .push(mount("bind", &layer, "", &["rbind", "ro"]));
    shim.task.create(&request).unwrap();
    let event = bed.sink().wait_brief("create c1");
    let Payload::Create(created) = event.payload else {
        panic!("{event:?}")
    };
    assert_eq!(created.rootfs.len(), 1);
    assert_eq!(created.rootfs[0].source, layer.display().to_string());
    bed.finish(&bundle, &shim);
}

#[test]
fn a_read_only_bind_is_read_only() {
    known_difference!(
        "crun",
        "crun makes a root writable that config.json calls so"
    );
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &Spec::sh("touch /x && exit 1; exit 0"));
    let mut request = bundle.create();
    request
        .rootfs
        .push(mount("bind", &layer, "", &["rbind", "ro"]));
    shim.task.create(&request).unwrap();
    shim.task.start("c1", "").unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 0);
    assert!(!layer.join("x").exists());
    bed.finish(&bundle, &shim);
}

#[test]
fn many_long_lower_folders_fit_past_a_page_of_options() {
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &Spec::sh("exec test -e /mark59"));
    let long = bed.path(&"snapshots-".repeat(8));
    let mut lower = vec![layer.display().to_string()];
    for n in 0..60 {
        let dir = long.join(format!("{n}/fs"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("mark{n}")), "").unwrap();
        lower.push(dir.display().to_string());
    }
    let lower = format!("lowerdir={}", lower.join(":"));
    assert!(lower.len() > 4096);
    let (upper, work) = (bed.path("upper"), bed.path("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    let upper = format!("upperdir={}", upper.display());
    let work = format!("workdir={}", work.display());
    let mut request = bundle.create();
    request.rootfs.push(mount(
        "overlay",
        Path::new("overlay"),
        "",
        &[&work, &upper, &lower],
    ));
    let created = shim.task.create(&request);
    if created.is_err() {
        known_difference!(
            "go",
            "Go compacts only lower folders with a common parent of its snapshots"
        );
    }
    created.unwrap();
    shim.task.start("c1", "").unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 0);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_mount_that_fails_is_named_and_rolls_back_the_ones_before() {
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &Spec::sleeper());
    let mut request = bundle.create();
    request.rootfs.push(mount("bind", &layer, "", &["rbind"]));
    request
        .rootfs
        .push(mount("bind", &bed.path("no-such-layer"), "", &["rbind"]));
    let error = shim.task.create(&request).unwrap_err();
    assert!(error.message().contains("mount"), "{error}");
    assert!(host::mounts_below(&bundle.path).is_empty(), "rolled back");
    assert_eq!(
        shim.task.state("c1", "").unwrap_err().code(),
        Some(Code::NOT_FOUND)
    );
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_runtime_that_fails_rolls_back_the_mounts() {
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &Spec::new(&["/no/such/program"]));
    let mut request = bundle.create();
    request.rootfs.push(mount("bind", &layer, "", &["rbind"]));
    let error = shim.task.create(&request).unwrap_err();
    assert!(
        error.message().starts_with("OCI runtime create failed:"),
        "{error}"
    );
    assert!(host::mounts_below(&bundle.path).is_empty(), "rolled back");
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_loop_device_is_set_up_and_released() {
    let bed = Bed::new();
    skip_unless!(
        target::find_in_path("mkfs.ext4").is_some() && Path::new("/dev/loop-control").exists(),
        "mkfs.ext4 or loop devices are missing"
    );
    let (bundle, shim, layer) = with_layer(&bed, &Spec::sh("exit 0"));
    let image = bed.path("image");
    let made = std::fs::File::create(&image).and_then(|f| f.set_len(16 << 20));
    made.unwrap();
    if !make_ext4(&image, &layer) {
        target::skipped("mkfs.ext4 -d does not work here");
        return;
    }
    let mut request = bundle.create();
    request.rootfs.push(mount("ext4", &image, "", &["loop"]));
    shim.task.create(&request).unwrap();
    shim.task.start("c1", "").unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 0);
    bed.end(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
    let backing = image.display().to_string();
    eventually(SHORT, "the loop device is free", || {
        let Ok(devices) = std::fs::read_dir("/sys/block") else {
            return true;
        };
        !devices.flatten().any(|d| {
            std::fs::read_to_string(d.path().join("loop/backing_file"))
                .is_ok_and(|b| b.trim() == backing)
        })
    });
}

#[expect(clippy::disallowed_methods, reason = "a test's own helper program")]
fn make_ext4(image: &Path, content: &Path) -> bool {
    std::process::Command::new("mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .args([content, image])
        .output()
        .is_ok_and(|o| o.status.success())
}

#[test]
fn a_mount_target_is_a_folder_below_the_rootfs_and_no_symlink_leads_out() {
    known_difference!("go-v1", "targets came with the 1.7 shim");
    known_difference!("go", "targets came with the 1.7 shim");
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &Spec::sh("exec test -e /data/inside"));
    let outside = bed.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let data = bed.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("inside"), "").unwrap();
    std::os::unix::fs::symlink(&outside, layer.join("escape")).unwrap();
    let mut bad = bundle.create();
    bad.rootfs.push(mount("bind", &layer, "", &["rbind"]));
    bad.rootfs.push(mount("bind", &data, "/escape", &["rbind"]));
    let escaped = shim.task.create(&bad);
    assert!(
        !outside.join("inside").exists(),
        "mounted outside of the rootfs: {escaped:?}"
    );
    if escaped.is_ok() {
        shim.task.delete("c1", "").unwrap();
    }
    std::fs::create_dir_all(layer.join("data")).unwrap();
    let mut good = bundle.create();
    good.rootfs.push(mount("bind", &layer, "", &["rbind"]));
    good.rootfs.push(mount("bind", &data, "/data", &["rbind"]));
    shim.task.create(&good).unwrap();
    shim.task.start("c1", "").unwrap();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 0);
    bed.finish(&bundle, &shim);
}

#[test]
fn delete_after_a_crash_unmounts_too() {
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &Spec::sleeper());
    let mut request = bundle.create();
    request.rootfs.push(mount("bind", &layer, "", &["rbind"]));
    shim.task.create(&request).unwrap();
    shim.task.start("c1", "").unwrap();
    shim.kill();
    bed.delete(&bundle).response();
    assert!(host::mounts_below(&bundle.path).is_empty());
    assert!(
        layer.join("bin/busybox").exists(),
        "the layer's files are untouched"
    );
    bed.discard(&bundle);
    known_difference!("go-v2", "Go's v2 leaves the dead shim's socket (row 24)");
    bed.assert_clean();
}

#[test]
fn the_harness_makes_a_root_filesystem_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    make_rootfs(dir.path());
    assert!(dir.path().join("bin/sh").is_symlink());
}
