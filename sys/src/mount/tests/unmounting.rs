//! Unmounting: stacked, nested, hidden, busy, behind symlinks.

use super::*;

#[test]
fn stacked_nested_hidden_and_oddly_named_mounts_all_go() {
    let bed = Bed::new();
    let root = bed.path("ro otfs\n\\\t");
    let tmpfs = |target: &str| request("tmpfs", Path::new("t"), target, &[]);
    let list = [
        tmpfs(""),
        tmpfs("a b/c\nd"),
        tmpfs("a b/c\nd"),
        tmpfs("a b/c\nd/e"),
        // Covers all those below it.
        tmpfs(""),
        tmpfs("f"),
    ];
    mount_all(&list, &root).unwrap();
    let neighbour = bed.path("ro otfs\n\\\t2");
    mount_all(&[tmpfs("")], &neighbour).unwrap();
    assert_eq!(mounts_below(&root).unwrap().len(), 6);
    assert!(
        mounts_below(&root)
            .unwrap()
            .contains(&root.join("a b/c\nd/e"))
    );
    unmount_recursive(&root).unwrap();
    assert_eq!(mounts_below(&root).unwrap().len(), 0);
    assert_eq!(mounts_below(&neighbour).unwrap().len(), 1);
    // Again, and on what does not exist.
    unmount_recursive(&root).unwrap();
    unmount_recursive(&bed.path("absent/deeper")).unwrap();
    unmount_recursive(&bed.path("ro otfs\n\\\t/f")).unwrap();
}

#[test]
fn an_unmount_by_a_symlink_leaves_its_target_alone() {
    let bed = Bed::new();
    mount_all(&[request("tmpfs", Path::new("t"), "", &[])], &bed.rootfs()).unwrap();
    symlink(bed.rootfs(), bed.path("link")).unwrap();
    unmount_recursive(&bed.path("link")).unwrap();
    assert_eq!(bed.mounted().len(), 1);
    // A symlink on the way is the caller's, and resolved.
    let there = bed.folder("real");
    mount_all(
        &[request("tmpfs", Path::new("t"), "", &[])],
        &there.join("m"),
    )
    .unwrap();
    symlink(&there, bed.path("way")).unwrap();
    unmount_recursive(&bed.path("way/m")).unwrap();
    assert_eq!(mounts_below(&there).unwrap().len(), 0);
}

#[test]
fn a_busy_mount_is_detached_after_a_second() {
    let bed = Bed::new();
    let tmpfs = |target: &str| request("tmpfs", Path::new("t"), target, &[]);
    mount_all(&[tmpfs(""), tmpfs("sub")], &bed.rootfs()).unwrap();
    let user = fs::File::create(bed.rootfs().join("sub/file")).unwrap();
    let start = std::time::Instant::now();
    unmount_recursive(&bed.rootfs()).unwrap();
    let took = start.elapsed();
    assert_eq!(bed.mounted().len(), 0);
    assert!((1.0..20.0).contains(&took.as_secs_f64()), "{took:?}");
    drop(user);
}

#[test]
fn the_root_is_refused_and_an_empty_path_is_nothing() {
    // In a namespace of its own: should the guard fail, nothing but this test suffers.
    let _bed = Bed::new();
    for root in ["/", "//", "/.", "/tmp/.."] {
        let error = unmount_recursive(Path::new(root)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    unmount_recursive(Path::new("")).unwrap();
    assert!(Path::new("/proc/self").exists());
}

#[test]
fn a_symlink_put_in_the_way_does_not_lead_the_unmount_elsewhere() {
    let bed = Bed::new();
    let victim = bed.folder("victim");
    let tmpfs = |target: &str| request("tmpfs", Path::new("t"), target, &[]);
    mount_all(&[tmpfs("deep")], &victim).unwrap();
    mount_all(&[tmpfs("a/deep")], &bed.rootfs()).unwrap();
    // The folder with the mount moves, and a symlink to the victim takes its place: the table,
    // once read, names a path that now leads elsewhere.
    let table = mountinfo::below(&bed.rootfs()).unwrap();
    fs::rename(bed.rootfs().join("a"), bed.rootfs().join("b")).unwrap();
    symlink(&victim, bed.rootfs().join("a")).unwrap();
    assert!(unmount::detach(&bed.rootfs(), &table[0].path).is_err());
    assert_eq!(mounts_below(&victim).unwrap().len(), 1);
    unmount_recursive(&bed.rootfs()).unwrap();
    assert_eq!(bed.mounted().len(), 0);
    assert_eq!(mounts_below(&victim).unwrap().len(), 1);
}
