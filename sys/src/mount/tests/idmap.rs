//! Mounts with mapped owners, and the child that carries the mapping.

use super::*;

const MAPS: [&str; 2] = [
    "uidmap=0:100000:65536,65536:300000:10",
    "gidmap=0:200000:65536,65536:400000:10",
];

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn an_idmapped_bind_shows_mapped_owners() {
    let bed = Bed::new();
    let source = bed.folder("source");
    fs::write(source.join("user"), "").unwrap();
    chown(source.join("user"), Some(65537), Some(65538)).unwrap();
    let words = ["rbind", "ro", MAPS[0], MAPS[1]];
    mount_all(&[request("bind", &source, "", &words)], &bed.rootfs()).unwrap();
    assert_eq!(owner(bed.rootfs().join("name")), (100_000, 200_000));
    assert_eq!(owner(bed.rootfs().join("user")), (300_001, 400_002));
    assert!(fs::write(bed.rootfs().join("x"), "").is_err());
    assert_eq!(owner(source.join("name")), (0, 0));
}

#[test]
fn an_idmapped_file_system_is_one_mount_with_mapped_owners() {
    if !kernel_has("a tmpfs with mapped owners", (6, 3)) {
        return;
    }
    let bed = Bed::new();
    let list = [request(
        "tmpfs",
        Path::new("t"),
        "",
        &["mode=0750", MAPS[0], MAPS[1]],
    )];
    mount_all(&list, &bed.rootfs()).unwrap();
    assert_eq!(owner(bed.rootfs()), (100_000, 200_000));
    assert_eq!(
        fs::metadata(bed.rootfs()).unwrap().permissions().mode() & 0o777,
        0o750
    );
    assert_eq!(bed.mounted(), [bed.rootfs()]);
}

#[test]
fn an_idmapped_overlay_maps_its_lower_layers_on_new_and_old_kernels() {
    let bed = Bed::new();
    let mut words = overlay_words(&bed, &layers(&bed, "l", 40));
    chown(bed.path("upper"), Some(100_000), Some(200_000)).unwrap();
    words.extend(MAPS.map(str::to_owned));
    let parsed = Options::parse(&words).unwrap();
    let temporary = || {
        let listed = fs::read_dir("/run").unwrap().flatten();
        listed
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("wherry-layers")
            })
            .count()
    };
    let check = |way: &str| {
        assert_eq!(
            owner(bed.rootfs().join("only-in-39")),
            (100_000, 200_000),
            "{way}"
        );
        assert!(bed.rootfs().join("only-in-0").exists());
        assert_eq!(bed.mounted(), [bed.rootfs()], "{way}");
        let table = read("/proc/thread-self/mountinfo");
        assert!(!table.contains("wherry-layers"), "{way}");
        unmount_recursive(&bed.rootfs()).unwrap();
    };
    let list = [Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        options: words,
        ..Mount::default()
    }];
    mount_all(&list, &bed.rootfs()).unwrap();
    check("chosen");

    let userns = userns::with_mapping(parsed.id_mapping.as_ref().unwrap()).unwrap();
    for modern in [true, false] {
        if modern && !kernel_has("an overlay on detached layers", (6, 15)) {
            continue;
        }
        let trees = overlay::mapped_layers(&parsed, userns.as_fd()).unwrap();
        let place = Place::open(&bed.rootfs(), "").unwrap();
        let source = Path::new("overlay");
        let mounted = if modern {
            overlay::by_context(source, &place, &parsed, Some(&trees))
        } else {
            overlay::by_temporary_tree(source, &place, &parsed, &trees)
        };
        drop((
            mounted.unwrap_or_else(|failure| panic!("modern {modern}: {failure:?}")),
            place,
        ));
        check(if modern { "context" } else { "temporary tree" });
    }
    assert_eq!(temporary(), 0);
    assert_eq!(owner(bed.path("l/39/fs/only-in-39")), (0, 0));
}

#[test]
fn a_bad_mapping_is_refused_before_anything_is_mounted() {
    let bed = Bed::new();
    let source = bed.folder("source");
    let words = ["bind", "uidmap=0:1:10,5:100:10", "gidmap=0:1:1"];
    let error = mount_all(&[request("bind", &source, "", &words)], &bed.rootfs()).unwrap_err();
    assert_eq!(
        (error.step, error.errno()),
        (Step::UserNamespace, Some(libc::EINVAL))
    );
    assert_eq!(bed.mounted().len(), 0);
}

/// Runs as a process of its own (see below): only there is every child known.
#[test]
#[ignore = "started by the_reaper_never_sees_the_namespace_holder"]
#[expect(unsafe_code, reason = "plays the reaper")]
fn inner_reaper() {
    let reap = || {
        // SAFETY: a null status is allowed.
        let result = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
        (result, io::Error::last_os_error().raw_os_error())
    };
    let holder = userns::Holder::start().unwrap();
    let pid = holder.pid();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(reap(), (-1, Some(libc::ECHILD)), "alive");
    // SAFETY: our own child, not yet collected.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    let state = || {
        read(format!("/proc/{pid}/stat"))
            .rsplit(')')
            .next()
            .unwrap()
            .trim()
            .as_bytes()[0]
    };
    while state() != b'Z' {
        std::thread::yield_now();
    }
    assert_eq!(
        std::thread::spawn(reap).join().unwrap(),
        (-1, Some(libc::ECHILD)),
        "zombie"
    );
    drop(holder);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    println!("the reaper saw nothing");
}

#[test]
fn the_reaper_never_sees_the_namespace_holder() {
    let log = tempfile::NamedTempFile::new().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's own child")]
    let status = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "mount::tests::idmap::inner_reaper",
            "--ignored",
            "--nocapture",
        ])
        .stdout(log.reopen().unwrap())
        .stderr(log.reopen().unwrap())
        .status();
    let said = read(log.path());
    assert!(
        said.contains("the reaper saw nothing"),
        "{status:?}: {said}"
    );
}
