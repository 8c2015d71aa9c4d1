//! What hides files of lower layers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use daemon::diff::apply::{Place, apply};
use daemon::diff::target::Hiding;
use tar::EntryType;
use tempfile::TempDir;

use crate::tree::describe;
use crate::{archive, entry, link, merged, plain};

#[test]
fn whiteouts_hide_what_is_below_and_never_what_the_layer_brings() {
    for overlay in [false, true] {
        let dir = TempDir::new().unwrap();
        let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
        for name in ["opaque/old/deep", "kept", "typed", "gone/in"] {
            fs::create_dir_all(lower.join(name)).unwrap();
        }
        for name in [
            "opaque/f",
            "opaque/old/deep/f",
            "kept/f",
            "kept/g",
            "typed/f",
        ] {
            fs::write(lower.join(name), "lower").unwrap();
        }
        fs::set_permissions(lower.join("kept"), PermissionsExt::from_mode(0o700)).unwrap();
        chown(lower.join("kept"), Some(5), Some(6)).unwrap();
        let entries = [
            entry("opaque/before"),
            entry("opaque/.wh..wh..opq"),
            entry("opaque/after"),
            entry("kept/.wh.f"),
            entry("kept/.wh.nothing"),
            entry("new"),
            entry(".wh.new"),
            entry(".wh.gone"),
            entry(".wh.typed"),
            link(EntryType::Directory, "typed", ""),
            entry("typed/mine"),
            entry(".wh..wh.plnk"),
        ];
        let bytes = archive(&entries);
        let seen = if overlay {
            fs::create_dir(&upper).unwrap();
            let place = Place {
                root: upper.clone(),
                lower: vec![lower.clone()],
                hiding: Hiding::Overlay("trusted."),
            };
            apply(&bytes[..], &place, 0).unwrap();
            merged(dir.path(), &lower, &upper)
        } else {
            apply(&bytes[..], &plain(&lower), 0).unwrap();
            describe(&lower, false)
        };
        let names: Vec<_> = seen.keys().map(|path| path.to_str().unwrap()).collect();
        let wanted = [
            "kept",
            "kept/g",
            "new",
            "opaque",
            "opaque/after",
            "opaque/before",
            "typed",
            "typed/mine",
        ];
        assert_eq!(names, wanted, "overlay: {overlay}");
        assert!(seen[Path::new("kept")].contains("40700 5:6"), "{seen:?}");
    }
}
