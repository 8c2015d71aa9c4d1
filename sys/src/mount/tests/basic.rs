//! Bind mounts, flags, propagation, errors, roll-back and symlinks.

use super::*;

#[test]
fn an_empty_list_does_nothing_at_all() {
    let bed = Bed::new();
    mount_all(&[], &bed.rootfs()).unwrap();
    assert!(!bed.rootfs().exists());
}

#[test]
fn a_bind_shows_the_source_and_the_rootfs_is_made() {
    let bed = Bed::new();
    let source = bed.folder("source");
    mount_all(
        &[request("bind", &source, "", &["rbind", "rw"])],
        &bed.rootfs(),
    )
    .unwrap();
    assert_eq!(read(bed.rootfs().join("name")), "source");
    fs::write(source.join("new"), "x").unwrap();
    assert_eq!(read(bed.rootfs().join("new")), "x");
    unmount_recursive(&bed.rootfs()).unwrap();
    assert_eq!(bed.mounted(), [] as [PathBuf; 0]);
    assert_eq!(fs::metadata(bed.rootfs()).unwrap().mode() & 0o777, 0o711);
    assert!(source.join("name").exists());
}

#[test]
fn a_read_only_bind_refuses_writes_and_keeps_restrictions_of_the_source() {
    let bed = Bed::new();
    let source = bed.folder("source");
    let nosuid = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("t"), &source, Some("tmpfs"), nosuid, None::<&str>).unwrap();
    fs::create_dir(source.join("deep")).unwrap();
    mount(
        Some("t"),
        &source.join("deep"),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let words = options(&["rbind", "ro", "noexec"]);
    let check = |rootfs: &Path| {
        let error = fs::write(rootfs.join("x"), "").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        // Like mount(8): the mounts below keep their own mode.
        fs::write(rootfs.join("deep/x"), "").unwrap();
        let line = table_line(rootfs);
        for word in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(line.contains(word), "{word} in {line}");
        }
        unmount_recursive(rootfs).unwrap();
    };
    for classic in [false, true] {
        let place = Place::open(&bed.rootfs(), "").unwrap();
        let bound = if classic {
            bind::by_remount(&source, &place, &words).unwrap()
        } else {
            bind::by_tree(&source, &place, &words, None).unwrap()
        };
        drop((bound, place));
        check(&bed.rootfs());
    }
    fs::write(source.join("x"), "").unwrap();
}

#[test]
fn propagation_words_are_obeyed() {
    let bed = Bed::new();
    let source = bed.folder("source");
    for (word, shown) in [("rshared", "shared:"), ("unbindable", "unbindable")] {
        mount_all(
            &[request("bind", &source, "", &["bind", word])],
            &bed.rootfs(),
        )
        .unwrap();
        let line = table_line(&bed.rootfs());
        assert!(line.contains(shown), "{shown} in {line}");
        unmount_recursive(&bed.rootfs()).unwrap();
    }
    mount_all(
        &[request("bind", &source, "", &["bind", "shared", "private"])],
        &bed.rootfs(),
    )
    .unwrap();
    assert!(!table_line(&bed.rootfs()).contains("shared:"));
}

#[test]
fn a_remount_changes_the_flags_of_what_is_there() {
    let bed = Bed::new();
    let list = [
        request("tmpfs", Path::new("tmpfs"), "", &["size=64k"]),
        request("", Path::new(""), "", &["remount", "ro"]),
    ];
    mount_all(&list, &bed.rootfs()).unwrap();
    assert!(fs::write(bed.rootfs().join("x"), "").is_err());
    assert_eq!(bed.mounted().len(), 1);
}

#[test]
fn errors_name_everything_and_carry_the_kernels_words() {
    let bed = Bed::new();
    let missing = bed.path("missing");
    let present = bed.folder("present");
    let words = [format!(
        "lowerdir={}:{}",
        present.display(),
        missing.display()
    )];
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let list = [request("overlay", Path::new("src"), "", &words)];
    let error = mount_all(&list, &bed.rootfs()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(error.step, Step::Mount);
    let said = error.to_string();
    for part in ["\"overlay\"", "\"src\"", &text(&bed.rootfs()), "os error 2"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    if kernel_has("a message of overlay", (6, 8)) {
        assert!(said.contains(&text(&missing)), "{said}");
        let file = bed.folder("layer").join("name");
        let word = format!("lowerdir={}", file.display());
        let list = [request("overlay", Path::new("src"), "", &[&word])];
        let error = mount_all(&list, &bed.rootfs()).unwrap_err();
        assert!(error.detail.contains("not a directory"), "{error}");
    }
    let list = [request("tmpfs", Path::new("src"), "", &["size=banana"])];
    let error = mount_all(&list, &bed.rootfs()).unwrap_err();
    assert!(error.detail.contains("Bad value for 'size'"), "{error}");
    let list = [request("nosuchfs", Path::new("src"), "", &[])];
    assert_eq!(
        mount_all(&list, &bed.rootfs()).unwrap_err().errno(),
        Some(libc::ENODEV)
    );
    let list = [request("fuse3.x", Path::new("src"), "", &[])];
    assert_eq!(
        mount_all(&list, &bed.rootfs()).unwrap_err().errno(),
        Some(libc::EOPNOTSUPP)
    );
}

#[test]
fn a_failure_takes_back_what_was_mounted_and_nothing_else() {
    let bed = Bed::new();
    let source = bed.folder("source");
    fs::create_dir(source.join("sub")).unwrap();
    fs::create_dir(bed.rootfs()).unwrap();
    mount(
        Some("old"),
        &bed.rootfs(),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let list = [
        request("bind", &source, "", &["rbind"]),
        request("tmpfs", Path::new("tmpfs"), "sub", &[]),
        request("tmpfs", Path::new("tmpfs"), "sub", &[]),
        request("bind", &bed.path("absent"), "", &["bind"]),
    ];
    let error = mount_all(&list, &bed.rootfs()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(bed.mounted(), [bed.rootfs()]);
    assert!(table_line(&bed.rootfs()).contains(" old "));
    mount_all(&list[..3], &bed.rootfs()).unwrap();
    assert_eq!(bed.mounted().len(), 4);
}

#[test]
fn no_symlink_leads_a_mount_out_of_the_rootfs() {
    let bed = Bed::new();
    let source = bed.folder("source");
    let outside = bed.folder("outside");
    fs::create_dir_all(bed.rootfs().join("in")).unwrap();
    symlink(&outside, bed.rootfs().join("absolute")).unwrap();
    symlink("../outside", bed.rootfs().join("relative")).unwrap();
    symlink("/in", bed.rootfs().join("inside")).unwrap();
    symlink(
        format!("/proc/{}/root", std::process::id()),
        bed.rootfs().join("magic"),
    )
    .unwrap();
    let bind = |target: &str| request("bind", &source, target, &["bind"]);
    for target in [
        "absolute",
        "relative",
        "absolute/deeper",
        "relative/deeper",
        "magic",
        "a/../b",
    ] {
        mount_all(&[bind(target)], &bed.rootfs()).unwrap_err();
    }
    assert!(!outside.join("deeper").exists());
    // One that stays within is what the container would see.
    mount_all(&[bind("/inside/made/here")], &bed.rootfs()).unwrap();
    assert_eq!(bed.mounted(), [bed.rootfs().join("in/made/here")]);
    // The root itself: no symlink, not even with a slash.
    symlink(&outside, bed.path("link")).unwrap();
    for link in [bed.path("link"), bed.path("link/")] {
        let error = mount_all(&[bind("")], &link).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
    assert_eq!(mounts_below(&outside).unwrap().len(), 0);
}
