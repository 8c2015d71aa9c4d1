//! Uploads on disk, with what a killed daemon leaves of them.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::{Ingests, Writer};
use crate::content::blobs::Blobs;
use crate::content::digest::Digest;

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

#[test]
fn what_waits_in_memory_counts_and_is_written_when_the_client_hangs_up() {
    let rig = rig();
    let mut writer = Writer::open(&rig.ingests, "ns", "r", 0).unwrap();
    assert!(writer.keep(b"abc"));
    assert_eq!(rig.ingests.progress("ns", "r").unwrap().offset, 3);
    assert_eq!(rig.ingests.list(Some("ns")).unwrap()[0].1.offset, 3);
    drop(writer);
    assert_eq!(rig.ingests.progress("ns", "r").unwrap().offset, 3);
    let mut writer = Writer::open(&rig.ingests, "ns", "r", 0).unwrap();
    let digest = writer.commit(&rig.blobs, 3, None).unwrap();
    assert_eq!(fs::read(rig.blobs.path(&digest)).unwrap(), b"abc");
}

/// What a client, or its end, may do to an upload.
#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    BeginAnew,
    HangUp,
}

fn step() -> impl Strategy<Value = Step> {
    let data = |size| proptest::collection::vec(any::<u8>(), size);
    prop_oneof![
        12 => data(0..400).prop_map(Step::Send),
        4 => data(6_000..20_000).prop_map(Step::Send),
        1 => Just(Step::BeginAnew),
        1 => Just(Step::HangUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However data comes, everybody is told how much there is of it, and it becomes the blob.
    #[test]
    fn an_upload_is_what_was_sent(steps in proptest::collection::vec(step(), 0..40)) {
        let rig = rig();
        let mut sent = Vec::new();
        let open = || Writer::open(&rig.ingests, "ns", "r", 0).unwrap();
        let mut writer = open();
        for step in steps {
            match step {
                Step::Send(data) => {
                    if !writer.keep(&data) {
                        writer.write(&data).unwrap();
                    }
                    sent.extend(data);
                }
                Step::BeginAnew => {
                    writer.restart().unwrap();
                    sent.clear();
                }
                Step::HangUp => {
                    drop(writer);
                    writer = open();
                }
            }
            prop_assert_eq!(writer.progress().offset, sent.len() as u64);
            let seen = rig.ingests.progress("ns", "r").unwrap();
            prop_assert_eq!(seen.offset, sent.len() as u64);
            prop_assert_eq!(writer.digest(), Digest::of(&Sha256::new().chain_update(&sent)));
        }
        let digest = writer.commit(&rig.blobs, sent.len() as u64, None).unwrap();
        prop_assert_eq!(fs::read(rig.blobs.path(&digest)).unwrap(), sent);
    }
}
