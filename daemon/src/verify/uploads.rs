//! Uploads: what a killed daemon has left half made, and what no client would find again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Parts;
use super::report::{Grade, Repair, Report};
use crate::content::digest::Digest;
use crate::content::ingest::{Ingests, folder_name};

/// Looks at every upload. With repairs, first does what the daemon does at its start.
pub(super) fn check(parts: &Parts<'_>, report: &mut Report<'_>) {
    let folder = parts.content.join("ingest");
    if !folder.exists() {
        return;
    }
    if report.repairs
        && let Err(refusal) = recover(parts)
    {
        report.problem("uploads".to_owned(), refusal.message(), String::new());
    }
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            let text = format!("{}: {error}", folder.display());
            report.problem("uploads".to_owned(), text, String::new());
            return;
        }
    };
    for entry in entries.flatten() {
        one(&entry.path(), report);
    }
}

fn recover(parts: &Parts<'_>) -> Result<(), tonic::Status> {
    let known = |digest: &Digest| Ok(parts.store.blob_anywhere(digest)?.is_some());
    Ingests::open(&parts.content)?.recover(&parts.blobs, known)
}

fn one(path: &Path, report: &mut Report<'_>) {
    let subject = format!("upload {}", path.display());
    let text = |name: &str| fs::read_to_string(path.join(name));
    let removal = || {
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        Repair::new("removes it", move || {
            fs::remove_dir_all(path).map_err(told)?;
            Ok("removed".to_owned())
        })
    };
    let data = fs::metadata(path.join("data"));
    let Ok(namespace) = text("namespace") else {
        let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if is_empty {
            let text = "empty; the daemon removes it at its next start";
            report.mend(Grade::Note, subject, text, removal(), String::new());
        } else {
            report.note(subject, "is another daemon's, and left alone");
        }
        return;
    };
    let (Ok(reference), Ok(data)) = (text("ref"), data) else {
        let text = "half made or half removed; the daemon removes it at its next start";
        report.mend(Grade::Note, subject, text, removal(), String::new());
        return;
    };
    let name = folder_name(&namespace, &reference);
    if path.file_name().is_none_or(|found| found != name.as_str()) {
        let text = format!("says that it is {reference:?} ({namespace}), whose folder is {name}");
        report.mend(Grade::Problem, subject, text, removal(), String::new());
    } else if data.nlink() > 1 {
        let text = "was being committed when the daemon was killed, which finishes it at its next \
                    start";
        report.note(subject, text);
    }
}
