//! Uploads on disk, with what a killed daemon leaves of them.

use std::fs;
use std::sync::Arc;

use super::{Ingests, Writer};
use crate::content::blobs::Blobs;

struct Rig {
    dir: tempfile::TempDir,
    blobs: Blobs,
    ingests: Arc<Ingests>,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let ingests = Ingests::open(dir.path()).unwrap();
    Rig {
        dir,
        blobs,
        ingests,
    }
}

#[test]
fn what_became_a_blob_without_becoming_known_is_an_upload_again() {
    let rig = rig();
    let mut writer = Writer::open(&rig.ingests, "ns", "r", 3).unwrap();
    writer.write(b"abc").unwrap();
    let digest = writer.commit(&rig.blobs, 3, None).unwrap();
    drop(writer);
    assert_eq!(rig.blobs.size(&digest).unwrap(), Some(3));

    rig.ingests.recover(&rig.blobs, |_| Ok(false)).unwrap();
    assert_eq!(rig.blobs.size(&digest).unwrap(), None);
    let progress = rig.ingests.progress("ns", "r").unwrap();
    assert_eq!((progress.offset, progress.total), (3, 3));

    let mut writer = Writer::open(&rig.ingests, "ns", "r", 3).unwrap();
    writer.commit(&rig.blobs, 3, Some(&digest)).unwrap();
    drop(writer);
    rig.ingests.recover(&rig.blobs, |_| Ok(true)).unwrap();
    assert_eq!(rig.blobs.size(&digest).unwrap(), Some(3));
    assert_eq!(rig.ingests.list(None).unwrap(), []);
    assert_eq!(rig.blobs.all().unwrap(), [digest]);
}

#[test]
fn uploads_of_another_daemon_are_left_alone() {
    let rig = rig();
    let theirs = rig.dir.path().join("ingest/0123");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("ref"), "default/1/layer").unwrap();
    rig.ingests.recover(&rig.blobs, |_| Ok(true)).unwrap();
    assert!(theirs.join("ref").exists());
    assert_eq!(rig.ingests.list(None).unwrap(), []);
}

#[test]
fn data_with_the_wrong_digest_is_thrown_away() {
    let rig = rig();
    let mut writer = Writer::open(&rig.ingests, "ns", "r", 0).unwrap();
    writer.write(b"abc").unwrap();
    let right = writer.digest();
    writer.restart().unwrap();
    writer.write(b"abd").unwrap();
    let refusal = writer.commit(&rig.blobs, 3, Some(&right)).unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::FailedPrecondition);
    drop(writer);
    assert_eq!(rig.ingests.progress("ns", "r").unwrap().offset, 0);
    rig.ingests.abort("ns", "r").unwrap();
    rig.ingests.abort("ns", "r").unwrap_err();
}
