//! What is packed is unpacked as it was, in every dialect and compression.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use daemon::diff::apply::apply_blob;
use daemon::diff::fault::Fault;
use daemon::diff::media::Reading;
use tempfile::TempDir;

use crate::rich::{attributes, modern_tree, rich_tree};
use crate::tree::{describe, difference};
use crate::{plain, tar};

#[test]
fn every_dialect_of_tar_is_unpacked_as_it_was_packed() {
    let dir = TempDir::new().unwrap();
    for (number, arguments) in [
        &["--format=v7"][..],
        &["--format=ustar"],
        &["--format=oldgnu", "--sparse"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--xattrs", "--xattrs-include=*"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ]
    .into_iter()
    .enumerate()
    {
        let is_modern = !arguments[0].ends_with("v7") && !arguments[0].ends_with("ustar");
        let (from, to) = (
            dir.path().join(format!("from{number}")),
            dir.path().join(format!("to{number}")),
        );
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        rich_tree(&from);
        if is_modern {
            modern_tree(&from);
        }
        if arguments.contains(&"--xattrs") {
            attributes(&from);
        }
        if arguments[0].ends_with("v7") {
            // It knows no devices.
            for name in ["char", "block", "fifo"] {
                fs::remove_file(from.join(name)).unwrap();
            }
        }
        let archive = dir.path().join("archive");
        tar(arguments, &from, &archive);
        apply_blob(
            File::open(&archive).unwrap(),
            Reading::Plain,
            &plain(&to),
            0,
        )
        .unwrap_or_else(|fault| panic!("{arguments:?}: {fault}"));
        // Only PAX has parts of seconds.
        let whole = !arguments[0].ends_with("pax");
        let differences = difference(&describe(&from, whole), &describe(&to, whole));
        assert_eq!(differences, Vec::<String>::new(), "{arguments:?}");
        if arguments.contains(&"--sparse") {
            let blocks = fs::metadata(to.join("sparse")).unwrap().blocks();
            assert!(blocks * 512 < 8 << 20, "{arguments:?}: holes are filled");
        }
    }
}

#[test]
fn compressed_layers_are_told_by_what_they_begin_with() {
    let dir = TempDir::new().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    rich_tree(&from);
    let archive = dir.path().join("archive");
    tar(&["--format=pax"], &from, &archive);
    let uncompressed = fs::read(&archive).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&uncompressed[..1000]).unwrap();
    let mut gzip = gzip.finish().unwrap();
    // A second member, as parallel compressors write.
    let mut second = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    second.write_all(&uncompressed[1000..]).unwrap();
    gzip.extend(second.finish().unwrap());
    let mut zstd = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    zstd.extend(zstd::encode_all(&uncompressed[..], 3).unwrap());
    let mut digests = Vec::new();
    for (name, bytes) in [("plain", &uncompressed), ("gzip", &gzip), ("zstd", &zstd)] {
        let (blob, to) = (dir.path().join("blob"), dir.path().join(name));
        fs::write(&blob, bytes).unwrap();
        fs::create_dir(&to).unwrap();
        let blob = File::open(&blob).unwrap();
        let passed = apply_blob(blob, Reading::Sniff, &plain(&to), 0).unwrap();
        assert_eq!(passed.size, uncompressed.len() as u64, "{name}");
        digests.push(passed.digest);
        let differences = difference(&describe(&from, false), &describe(&to, false));
        assert_eq!(differences, Vec::<String>::new(), "{name}");
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
    // Cut short, in the middle of the data and at its end.
    for length in [gzip.len() / 2, gzip.len() - 3] {
        let (blob, to) = (dir.path().join("blob"), dir.path().join("cut"));
        fs::write(&blob, &gzip[..length]).unwrap();
        fs::create_dir_all(&to).unwrap();
        let blob = File::open(&blob).unwrap();
        let fault = apply_blob(blob, Reading::Sniff, &plain(&to), 0).unwrap_err();
        assert!(matches!(fault, Fault::Layer(_)), "{fault}");
    }
}
