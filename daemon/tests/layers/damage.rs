//! Archives damaged at random.

use std::fs;

use daemon::diff::apply::apply;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::rich::{attributes, modern_tree, rich_tree};
use crate::tree::{describe, difference};
use crate::{cases, guarded, plain, tar};

/// An archive with a little of everything, to be damaged.
fn sample() -> Vec<u8> {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SAMPLE
        .get_or_init(|| {
            let dir = TempDir::new().unwrap();
            let from = dir.path().join("from");
            fs::create_dir(&from).unwrap();
            rich_tree(&from);
            fs::write(from.join("folder/plain"), "short").unwrap();
            modern_tree(&from);
            attributes(&from);
            let mut bytes = Vec::new();
            for arguments in [
                &["--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"][..],
                &["--format=gnu", "--sparse"],
            ] {
                let archive = dir.path().join("archive");
                tar(arguments, &from, &archive);
                // Without its end, so that the other follows.
                let one = fs::read(&archive).unwrap();
                let end = one.iter().rposition(|byte| *byte != 0).unwrap() + 1;
                bytes.extend_from_slice(&one[..end.next_multiple_of(512)]);
            }
            bytes
        })
        .clone()
}

/// Sets the checksum of every block right that may be a header, so that what was damaged is read.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn damaged_archives_never_reach_out_of_their_target(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        names in prop::collection::vec((any::<prop::sample::Index>(), "[./a-c]{1,12}"), 0..6),
        length in any::<prop::sample::Index>(),
        mended in prop::bool::weighted(0.8),
    ) {
        let mut bytes = sample();
        let blocks = bytes.len() / 512;
        for (at, byte) in damage {
            bytes[at.index(blocks * 512)] = byte;
        }
        for (at, name) in names {
            let block = at.index(blocks) * 512;
            // The name, or where a link points to.
            let field = if name.len() % 2 == 0 { block } else { block + 157 };
            bytes[field..field + name.len()].copy_from_slice(name.as_bytes());
            bytes[field + name.len()] = 0;
        }
        if mended {
            mend(&mut bytes);
        } else {
            bytes.truncate(length.index(bytes.len()));
        }
        let (dir, target) = guarded();
        let before = describe(&dir.path().join("outside"), false);
        let applied = apply(&bytes[..], &plain(&target), 0);
        if applied.is_err() {
            prop_assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        }
        let after = describe(&dir.path().join("outside"), false);
        prop_assert_eq!(difference(&before, &after), Vec::<String>::new());
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
