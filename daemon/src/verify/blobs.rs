//! Blobs: the bytes of each against its digest, and files and records against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use core_api::content::Info;
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::images::Needs;
use super::progress::Progress;
use super::records::Records;
use super::report::{Grade, Repair, Report, some};
use super::{Parts, again};
use crate::content::digest::Digest;
use crate::store::audit::{Edit, Table};

/// How many files are read at the same time.
const THREADS: usize = 2;
/// How much each of them reads at once, in bytes.
const READ_SIZE: usize = 1 << 20;

/// What there is of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Its bytes are what its name says, and so many.
    Good(u64),
    /// They are not; the text says how.
    Damaged(String),
    /// There is no file.
    Missing,
}

/// The state of every blob that there is a record of.
pub(super) type States = BTreeMap<Digest, State>;

/// Reads every blob that has a record.
pub(super) fn examine(parts: &Parts<'_>, records: &Records, progress: &Progress) -> States {
    let known: BTreeSet<Digest> = records
        .content
        .keys()
        .map(|key| key.1)
        .chain(records.blobs.keys().copied())
        .collect();
    let known: Vec<Digest> = known.into_iter().collect();
    let size = |digest: &Digest| fs::metadata(parts.blobs.path(digest)).map_or(0, |m| m.len());
    progress.begin("reading blobs", known.iter().map(size).sum());
    let (next, states) = (AtomicUsize::new(0), Mutex::new(States::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut buffer = vec![0; READ_SIZE];
                while let Some(digest) = known.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let state = state(&parts.blobs.path(digest), digest, &mut buffer, progress);
                    let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
                    states.insert(*digest, state);
                }
            });
        }
    });
    progress.clear();
    states.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn state(path: &Path, digest: &Digest, buffer: &mut [u8], progress: &Progress) -> State {
    let mut read = || -> io::Result<(Digest, u64)> {
        let mut file = File::open(path)?;
        let (mut hash, mut size) = (Sha256::new(), 0);
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok((Digest::of(&hash), size)),
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    size += count as u64;
                    progress.add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    match read() {
        Ok((found, size)) if found == *digest => State::Good(size),
        Ok((found, size)) => State::Damaged(format!("its {size} bytes are those of {found}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => State::Missing,
        Err(error) => State::Damaged(format!("cannot be read: {error}")),
    }
}

/// Tells of blobs that are not what their records say, and of files without a record.
pub(super) fn check(
    parts: &Parts<'_>,
    records: &Records,
    states: &States,
    needs: &Needs,
    report: &mut Report<'_>,
) {
    for (digest, state) in states {
        let path = parts.blobs.path(digest);
        match state {
            State::Good(size) => check_sizes(parts, records, digest, *size, report),
            State::Missing => {
                let text = format!("its file {} is not there", path.display());
                lost(parts, records, digest, &text, needs, report);
            }
            State::Damaged(how) => {
                let subject = format!("blob {digest}");
                let text = format!("damaged: {} {how}", path.display());
                let names = needs.images_of(digest);
                let repair = Repair::new("sets it aside", || {
                    let aside = parts.blobs.set_aside(digest).map_err(told)?;
                    Ok(format!("is {} now", aside.display()))
                });
                let remedy = if names.is_empty() {
                    String::new()
                } else {
                    again(&names)
                };
                let done = report.mend(Grade::Problem, subject, text, repair, remedy);
                if done {
                    forget(parts, records, digest, needs, report);
                }
            }
        }
    }
    strangers(parts, records, report);
}

fn told(refusal: tonic::Status) -> String {
    refusal.message().to_owned()
}

/// A blob whose file is gone: an image that needs it has to be pulled again, and then finds the
/// record with its labels; without one the record goes.
fn lost(
    parts: &Parts<'_>,
    records: &Records,
    digest: &Digest,
    text: &str,
    needs: &Needs,
    report: &mut Report<'_>,
) {
    let names = needs.images_of(digest);
    if !names.is_empty() {
        report.problem(format!("blob {digest}"), text, again(&names));
    }
    forget(parts, records, digest, needs, report);
}

/// Removes the records of a blob without a file where no image needs it.
fn forget(
    parts: &Parts<'_>,
    records: &Records,
    digest: &Digest,
    needs: &Needs,
    report: &mut Report<'_>,
) {
    let knowing = records.knowing(digest);
    let unneeded: Vec<&String> = knowing
        .iter()
        .filter(|ns| needs.images(ns, digest).is_empty())
        .collect();
    let mut edits: Vec<Edit> = unneeded
        .iter()
        .map(|ns| Edit::remove(Table::Content, format!("{ns}\0{digest}")))
        .collect();
    if unneeded.len() == knowing.len() && records.blobs.contains_key(digest) {
        edits.push(Edit::remove(Table::Blobs, digest.to_string()));
    }
    if edits.is_empty() {
        return;
    }
    let text = match unneeded.as_slice() {
        [] => "has a record and no file, and no namespace knows it".to_owned(),
        spaces => format!(
            "{} knows it, and there is no file; no image there needs it",
            some(spaces.iter().map(|ns| format!("namespace {ns}")))
        ),
    };
    let repair = Repair::new("removes the record", || {
        parts.store.edit(edits).map_err(told)?;
        Ok("the record is removed".to_owned())
    });
    report.mend(
        Grade::Problem,
        format!("blob {digest}"),
        text,
        repair,
        String::new(),
    );
}

/// A blob that is whole: what its records say of its size.
fn check_sizes(
    parts: &Parts<'_>,
    records: &Records,
    digest: &Digest,
    size: u64,
    report: &mut Report<'_>,
) {
    let mut edits = Vec::new();
    let knowing = records.knowing(digest);
    if !knowing.is_empty() && records.blobs.get(digest) != Some(&size) {
        let value = size.to_le_bytes().to_vec();
        edits.push(Edit::put(Table::Blobs, digest.to_string(), value));
    }
    let signed = i64::try_from(size).unwrap_or(i64::MAX);
    for ns in knowing {
        let info = &records.content[&(ns.clone(), *digest)];
        if info.size != signed || info.digest != digest.to_string() {
            let info = Info {
                size: signed,
                digest: digest.to_string(),
                ..info.clone()
            };
            let key = format!("{ns}\0{digest}");
            edits.push(Edit::put(Table::Content, key, info.encode_to_vec()));
        }
    }
    if !edits.is_empty() {
        let text = format!("whole with {size} bytes, but a record says otherwise or is not there");
        let repair = Repair::new("corrects the record", || {
            parts.store.edit(edits).map_err(told)?;
            Ok("the record is corrected".to_owned())
        });
        let subject = format!("blob {digest}");
        report.mend(Grade::Problem, subject, text, repair, String::new());
    }
}

/// Files without a record. The collector removes the record first, and a commit stores it last:
/// so they are what a killed daemon leaves.
fn strangers(parts: &Parts<'_>, records: &Records, report: &mut Report<'_>) {
    let all = match parts.blobs.all() {
        Ok(all) => all,
        Err(refusal) => {
            report.problem("blobs".to_owned(), refusal.message(), String::new());
            return;
        }
    };
    let is_known =
        |digest: &Digest| records.blobs.contains_key(digest) || !records.knowing(digest).is_empty();
    let strangers: Vec<Digest> = all.into_iter().filter(|digest| !is_known(digest)).collect();
    if strangers.is_empty() {
        return;
    }
    if parts.is_shared {
        let text = format!(
            "{} blobs without a record are left alone: containerd used this folder too",
            strangers.len()
        );
        report.note("blobs".to_owned(), text);
        return;
    }
    for digest in strangers {
        let path = parts.blobs.path(&digest);
        let linked = fs::metadata(&path).is_ok_and(|found| found.nlink() > 1);
        let text = if linked {
            "was about to become known when the daemon was killed, and is an upload again at its \
             next start"
        } else {
            "has no record; the daemon removes it at its next start"
        };
        let repair = Repair::new("removes it", || {
            parts.blobs.remove(&digest).map_err(told)?;
            Ok("removed".to_owned())
        });
        let subject = format!("blob {digest}");
        report.mend(Grade::Note, subject, text, repair, String::new());
    }
}
