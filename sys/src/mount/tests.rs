//! Real mounts, made as root. Each test has a mount namespace of its own, which ends with its
//! thread: whatever a failing test leaves behind goes with it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::at::Place;
use super::loopdev::LoopDevice;
use super::options::Options;
use super::*;

/// A folder on a tmpfs of its own in a private mount namespace of this thread.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let dir = TempDir::new().unwrap();
        mount(
            Some("t"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder with a file `name` that says `name`.
    fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("name"), name).unwrap();
        path
    }

    fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    fn mounted(&self) -> Vec<PathBuf> {
        mounts_below(&self.rootfs()).unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = unmount_recursive(self.dir.path());
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn request(kind: &str, source: &Path, target: &str, options: &[&str]) -> Mount {
    Mount {
        kind: kind.to_owned(),
        source: text(source),
        target: target.to_owned(),
        options: options.iter().map(ToString::to_string).collect(),
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn options(words: &[&str]) -> Options {
    Options::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
}

/// The mount table's line of the topmost mount at `path`.
fn table_line(path: &Path) -> String {
    let needle = format!(" {} ", path.display());
    let table = read("/proc/thread-self/mountinfo");
    table
        .lines()
        .rfind(|line| line.contains(&needle))
        .unwrap_or_default()
        .to_owned()
}

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

fn layers(bed: &Bed, parent: &str, count: usize) -> Vec<String> {
    let layer = |index| {
        let path = bed.folder(&format!("{parent}/{index}/fs"));
        fs::write(path.join(format!("only-in-{index}")), "").unwrap();
        text(&path)
    };
    (0..count).map(layer).collect()
}

fn overlay_words(bed: &Bed, lower: &[String]) -> Vec<String> {
    vec![
        "index=off".to_owned(),
        format!("workdir={}", text(&bed.folder("work"))),
        format!("upperdir={}", text(&bed.folder("upper"))),
        format!("lowerdir={}", lower.join(":")),
        "X-containerd.mkdir.path=/nowhere".to_owned(),
    ]
}

#[test]
fn an_overlay_is_writable_and_leaves_its_layers_alone() {
    let bed = Bed::new();
    let lower = layers(&bed, "l", 3);
    let overlay = Mount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: overlay_words(&bed, &lower),
    };
    mount_all(&[overlay], &bed.rootfs()).unwrap();
    assert!(bed.rootfs().join("only-in-2").exists());
    fs::write(bed.rootfs().join("new"), "").unwrap();
    assert!(bed.path("upper/new").exists());
    assert!(table_line(&bed.rootfs()).contains("lowerdir="));
}

#[test]
fn two_hundred_long_layers_mount_on_new_and_old_kernels() {
    let bed = Bed::new();
    // With a name past the 255 bytes that fsconfig(2) takes, and one with a backslash.
    let parent = format!("{}/{}", "a".repeat(150), "b".repeat(150));
    let mut lower = layers(&bed, &parent, 200);
    let odd = bed.folder("odd:name");
    lower.push(text(&odd).replace(':', "\\:"));
    let words = overlay_words(&bed, &lower);
    assert!(words.join(",").len() > 16 * 1024);
    let cwd = fs::read_link("/proc/self/cwd").unwrap();

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
    assert_eq!(bed.mounted().len(), 1);
    unmount_recursive(&bed.rootfs()).unwrap();

    let lower = layers(&bed, &"c".repeat(200), 200);
    let words = Options::parse(&overlay_words(&bed, &lower)).unwrap();
    for modern in [true, false] {
        let place = Place::open(&bed.rootfs(), "").unwrap();
        let source = Path::new("overlay");
        let mounted = if modern {
            overlay::by_context(source, &place, &words, None)
        } else {
            overlay::by_common_folder(source, &place, &words)
        };
        drop((mounted.unwrap(), place));
        for index in 0..200 {
            assert!(
                bed.rootfs().join(format!("only-in-{index}")).exists(),
                "{modern}"
            );
        }
        fs::write(bed.rootfs().join("new"), "").unwrap();
        unmount_recursive(&bed.rootfs()).unwrap();
        assert_eq!(bed.mounted().len(), 0);
    }
    assert_eq!(fs::read_link("/proc/self/cwd").unwrap(), cwd);
}

#[test]
fn layers_with_nothing_in_common_and_too_long_are_an_error_without_the_new_calls() {
    let bed = Bed::new();
    let words = options(&[&format!("lowerdir=/{}:/b", "a".repeat(5000))]);
    let place = Place::open(&bed.rootfs(), "").unwrap();
    let failure = overlay::by_common_folder(Path::new("o"), &place, &words).unwrap_err();
    assert_eq!(failure.errno(), Some(libc::E2BIG));
}

#[test]
fn errors_name_everything_and_carry_the_kernels_words() {
    let bed = Bed::new();
    let missing = bed.path("missing");
    let words = [format!("lowerdir={}", missing.display())];
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let list = [request("overlay", Path::new("src"), "", &words)];
    let error = mount_all(&list, &bed.rootfs()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(error.step, Step::Mount);
    let said = error.to_string();
    for part in [
        "\"overlay\"",
        "\"src\"",
        &text(&bed.rootfs()),
        "os error 2",
        "missing",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let file = bed.folder("layer").join("name");
    let word = format!("lowerdir={}", file.display());
    let list = [request("overlay", Path::new("src"), "", &[&word])];
    let error = mount_all(&list, &bed.rootfs()).unwrap_err();
    assert!(error.detail.contains("not a directory"), "{error}");
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
    assert!((1.0..3.0).contains(&took.as_secs_f64()), "{took:?}");
    drop(user);
}

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
            "mount::tests::inner_reaper",
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
