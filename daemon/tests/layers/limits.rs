//! Disk, memory and time that a layer may take.

use std::fs::{self, File};
use std::io::Write;
use std::time::Instant;

use daemon::diff::apply::{apply, apply_blob};
use daemon::diff::fault::Fault;
use daemon::diff::media::Reading;
use tar::EntryType;

use crate::{Made, archive, entry, guarded, link, plain};

#[test]
fn the_reserve_of_free_space_stops_unpacking_and_what_was_unpacked_goes() {
    let (_dir, target) = guarded();
    let free = nix::sys::statvfs::statvfs(&target).unwrap();
    let free = free.blocks_available() * free.fragment_size();
    let fault = apply(&archive(&[entry("a")])[..], &plain(&target), free * 2).unwrap_err();
    assert!(matches!(fault, Fault::Full(_)), "{fault:?}");
    assert!(fault.to_string().contains("unpack_reserve"), "{fault}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    // What was there before is not ours to remove.
    fs::write(target.join("before"), "").unwrap();
    apply(&archive(&[entry("a")])[..], &plain(&target), free * 2).unwrap_err();
    assert!(target.join("before").exists());
    apply(&archive(&[entry("a")])[..], &plain(&target), 1).unwrap();
}

#[test]
fn a_full_disk_says_so_and_leaves_nothing() {
    let (dir, target) = guarded();
    let small = sys::mount::Mount {
        kind: "tmpfs".into(),
        source: "small".into(),
        target: String::new(),
        options: vec!["size=1m".into()],
    };
    sys::mount::mount_all(&[small], &target).unwrap();
    let data = vec![1; 2 << 20];
    let big = Made {
        data: &data,
        ..entry("big")
    };
    let fault = apply(&archive(&[entry("a"), big])[..], &plain(&target), 0);
    let left = fs::read_dir(&target).unwrap().count();
    sys::mount::unmount_recursive(&target).unwrap();
    assert!(matches!(fault, Err(Fault::Full(_))), "{fault:?}");
    assert_eq!(left, 0);
    drop(dir);
}

#[test]
fn a_window_of_zstandard_that_would_take_the_memory_is_refused() {
    let (dir, target) = guarded();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&archive(&[entry("a")])).unwrap();
    let blob = dir.path().join("blob");
    fs::write(&blob, encoder.finish().unwrap()).unwrap();
    let blob = File::open(blob).unwrap();
    let fault = apply_blob(blob, Reading::Sniff, &plain(&target), 0).unwrap_err();
    assert!(matches!(fault, Fault::Layer(_)), "{fault:?}");
}

/// A layer that would have folders gone through again and again (GHSA-rp3h-jf77-q9p4): the marks
/// that hide what lower layers have, as often as there are files.
#[test]
fn marks_do_not_make_unpacking_slower_with_each_file() {
    const FILES: usize = 2000;
    let names: Vec<String> = (0..FILES).map(|n| format!("d/{n}")).collect();
    let mut timed = Vec::new();
    for marks in [&[][..], &["d/.wh..wh..opq", ".wh.d"]] {
        let (_dir, target) = guarded();
        fs::create_dir_all(target.join("d/below")).unwrap();
        let mut entries = vec![link(EntryType::Directory, "d", "")];
        for name in &names {
            entries.push(Made {
                data: b"",
                ..entry(name)
            });
            entries.extend(marks.iter().map(|mark| Made {
                data: b"",
                ..entry(mark)
            }));
        }
        let bytes = archive(&entries);
        let began = Instant::now();
        apply(&bytes[..], &plain(&target), 0).unwrap();
        timed.push(began.elapsed());
        assert_eq!(target.join("d/below").exists(), marks.is_empty());
        let there = fs::read_dir(target.join("d")).unwrap().count();
        assert_eq!(there, FILES + usize::from(marks.is_empty()));
    }
    // Were each mark to look at every file, it would take some thousand times as long.
    assert!(timed[1] < timed[0] * 10, "{timed:?}");
}
