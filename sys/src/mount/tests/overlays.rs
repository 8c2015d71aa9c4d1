//! Overlays: few layers, more than fit a page, odd names.

use super::*;

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
    let cwd = fs::read_link("/proc/thread-self/cwd").unwrap();

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
    let words = Options::parse(&list[0].options).unwrap();
    let ways: [fn(&Place, &Options) -> _; 2] = [
        |place, words| overlay::by_context(Path::new("overlay"), place, words, None),
        |place, words| overlay::by_descriptors(Path::new("overlay"), place, words),
    ];
    for (index, way) in ways.into_iter().enumerate() {
        if index == 0 && !kernel_has("lowerdir+", (6, 8)) {
            continue;
        }
        let place = Place::open(&bed.rootfs(), "").unwrap();
        let mounted = way(&place, &words).unwrap();
        assert_eq!(read(bed.rootfs().join("name")), "upper");
        assert!(bed.rootfs().join("only-in-199").exists());
        drop((mounted, place));
        unmount_recursive(&bed.rootfs()).unwrap();
    }

    let lower = layers(&bed, &"c".repeat(200), 200);
    let words = Options::parse(&overlay_words(&bed, &lower)).unwrap();
    for modern in [true, false] {
        if modern && !kernel_has("lowerdir+", (6, 8)) {
            continue;
        }
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
    assert_eq!(fs::read_link("/proc/thread-self/cwd").unwrap(), cwd);
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
fn a_missing_layer_of_many_is_named() {
    let bed = Bed::new();
    let mut lower = layers(&bed, &"c".repeat(200), 30);
    lower.push(text(&bed.path("gone")));
    let list = [Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        options: overlay_words(&bed, &lower),
        ..Mount::default()
    }];
    let error = mount_all(&list, &bed.rootfs()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
    assert!(error.detail.contains(&text(&bed.path("gone"))), "{error}");
}
