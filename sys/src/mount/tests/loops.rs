//! Images behind loop devices.

use super::*;

/// An ext4 image with a file system, or none where mkfs.ext4 is missing.
fn ext4_image(bed: &Bed) -> Option<PathBuf> {
    let image = bed.path("image.ext4");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's own child")]
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F"])
        .arg(&image)
        .output();
    match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("skipped: mkfs.ext4 is not installed");
            return None;
        }
        // Another test of this process may be the reaper; the magic tells whether it worked.
        _ => {}
    }
    let bytes = fs::read(&image).unwrap();
    assert_eq!(
        bytes[0x438..0x43a],
        [0x53, 0xef],
        "mkfs.ext4 made a file system"
    );
    Some(image)
}

#[test]
fn a_loop_mount_works_and_gives_its_device_back() {
    let bed = Bed::new();
    let Some(image) = ext4_image(&bed) else {
        return;
    };
    for mode in ["rw", "ro"] {
        let list = [request("ext4", &image, "", &["loop", mode])];
        mount_all(&list, &bed.rootfs()).unwrap();
        assert!(bed.rootfs().join("lost+found").exists());
        assert_eq!(fs::write(bed.rootfs().join("x"), "").is_ok(), mode == "rw");
        let line = table_line(&bed.rootfs());
        let device = line
            .split(' ')
            .find(|word| word.starts_with("/dev/loop"))
            .unwrap();
        let backing = format!(
            "/sys/block/{}/loop/backing_file",
            device.trim_start_matches("/dev/")
        );
        let ours = || {
            fs::read_to_string(&backing)
                .unwrap_or_default()
                .contains(&text(&image))
        };
        assert!(ours());
        unmount_recursive(&bed.rootfs()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while ours() {
            assert!(
                std::time::Instant::now() < deadline,
                "{device} was not given back"
            );
            std::thread::yield_now();
        }
    }
    // In the two steps of kernels before 5.8.
    let device = LoopDevice::bind_by(&image, true, false, false).unwrap();
    let place = Place::open(&bed.rootfs(), "").unwrap();
    filesystem::mount_on(device.path(), "ext4", &place, &options(&["ro"])).unwrap();
    drop((device, place));
    assert!(bed.rootfs().join("lost+found").exists());
    unmount_recursive(&bed.rootfs()).unwrap();

    // A roll-back gives the device back too.
    let list = [
        request("ext4", &image, "", &["loop", "ro"]),
        request("bind", &bed.path("no"), "", &["bind"]),
    ];
    mount_all(&list, &bed.rootfs()).unwrap_err();
    let in_use = fs::read_dir("/sys/block").unwrap().flatten().any(|device| {
        let backing = fs::read_to_string(device.path().join("loop/backing_file"));
        backing.unwrap_or_default().contains(&text(&image))
    });
    assert!(!in_use);

    let empty = bed.path("empty.img");
    fs::File::create(&empty).unwrap().set_len(1 << 20).unwrap();
    let error = mount_all(&[request("ext4", &empty, "", &["loop"])], &bed.rootfs()).unwrap_err();
    assert_eq!(
        (error.step, error.errno()),
        (Step::Mount, Some(libc::EINVAL))
    );
    let error = mount_all(
        &[request("ext4", &bed.path("no"), "", &["loop"])],
        &bed.rootfs(),
    )
    .unwrap_err();
    assert_eq!(
        (error.step, error.errno()),
        (Step::LoopDevice, Some(libc::ENOENT))
    );
}
