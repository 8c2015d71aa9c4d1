//! The whole module on a kernel that lacks the calls younger than Linux 4.19. A filter of system
//! calls on the test's own thread, and the threads it starts, plays that kernel.

use super::*;

/// Makes this thread's openat2(2) and descriptor-based mount calls fail as unknown.
#[expect(unsafe_code, reason = "seccomp filters have no safe wrapper")]
fn forget_new_calls() {
    const MISSING: [libc::c_long; 7] = [
        libc::SYS_openat2,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_mount_setattr,
    ];
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let allow = step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW);
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    // The number of the call stands first in what a filter is shown.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (index, call) in MISSING.into_iter().enumerate() {
        let to_the_end = u8::try_from(MISSING.len() - index).unwrap();
        let call = u32::try_from(call).unwrap();
        program.push(step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            to_the_end,
            0,
            call,
        ));
    }
    program.push(allow);
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, enosys));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` describes `program`, which the kernel copies during the call.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    let gone = api::clone_tree(Path::new("/"), false).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENOSYS));
}

#[test]
fn binds_and_targets_work_without_the_new_calls() {
    let bed = Bed::new();
    let source = bed.folder("source");
    let outside = bed.folder("outside");
    fs::create_dir(source.join("sub")).unwrap();
    symlink(&outside, source.join("link")).unwrap();
    forget_new_calls();
    let list = [
        request("bind", &source, "", &["rbind", "nosuid"]),
        request("tmpfs", Path::new("t"), "sub/made", &["ro"]),
        request("bind", &source, "sub/made too", &["bind", "ro", "rslave"]),
    ];
    mount_all(&list, &bed.rootfs()).unwrap();
    let line = table_line(&bed.rootfs());
    assert!(line.contains("nosuid"), "{line}");
    assert!(fs::write(bed.rootfs().join("sub/made too/x"), "").is_err());
    assert_eq!(read(bed.rootfs().join("sub/made too/name")), "source");
    for target in ["link", "link/deeper"] {
        mount_all(
            &[request("tmpfs", Path::new("t"), target, &[])],
            &bed.rootfs(),
        )
        .unwrap_err();
    }
    assert!(!outside.join("deeper").exists());
    unmount_recursive(&bed.rootfs()).unwrap();

    let list = [
        &list[0],
        &list[1],
        &request("bind", &bed.path("absent"), "", &["bind"]),
    ];
    mount_all(&list.map(Clone::clone), &bed.rootfs()).unwrap_err();
    assert_eq!(bed.mounted().len(), 0);
}

#[test]
fn two_hundred_layers_mount_without_the_new_calls() {
    let bed = Bed::new();
    let words = overlay_words(&bed, &layers(&bed, &"c".repeat(200), 200));
    forget_new_calls();
    let list = [Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        options: words,
        ..Mount::default()
    }];
    mount_all(&list, &bed.rootfs()).unwrap();
    for index in 0..200 {
        assert!(bed.rootfs().join(format!("only-in-{index}")).exists());
    }
}

#[test]
fn an_id_mapping_without_the_new_calls_is_an_error_and_never_a_plain_mount() {
    let bed = Bed::new();
    let source = bed.folder("source");
    forget_new_calls();
    let maps = ["uidmap=0:100000:10", "gidmap=0:100000:10"];
    for (kind, word) in [("bind", "bind"), ("tmpfs", "nosuid")] {
        let list = [request(kind, &source, "", &[word, maps[0], maps[1]])];
        let error = mount_all(&list, &bed.rootfs()).unwrap_err();
        assert_eq!(
            (error.step, error.errno()),
            (Step::CloneTree, Some(libc::ENOSYS))
        );
        assert_eq!(bed.mounted().len(), 0);
    }
}
