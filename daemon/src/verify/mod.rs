//! `wherryd verify`: checks blobs, snapshots and database against each other, and mends what can be
//! mended from blobs. For a root folder whose daemon has been stopped: it takes the daemon's lock.
//!
//! [`records`] reads the database, [`blobs`] every byte of every blob, [`images`] finds out who
//! needs what and which layer makes which snapshot, [`snapshots`] compares trees with layers, and
//! [`rest`] looks at what is left: uploads, leases, labels, namespaces. Each repair is one step
//! that a kill leaves done or not done; a second run goes on from there.

mod blobs;
mod images;
mod progress;
mod records;
mod report;
mod rest;
mod snapshots;
mod uploads;

use std::path::PathBuf;

use crate::config::Config;
use crate::content;
use crate::content::blobs::Blobs;
use crate::snapshot::driver::{Driver, Layout};
use crate::snapshot::in_use::Mounts;
use crate::store::Store;

pub use progress::Progress;
pub use report::{Finding, Grade};

use records::Records;
use report::Report;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How many problems are left.
    pub problems: usize,
    /// What was looked at and what came of it, in one line.
    pub sum: String,
}

/// What is looked at.
struct Parts<'a> {
    store: &'a Store,
    /// The folder of blobs and uploads.
    content: PathBuf,
    blobs: Blobs,
    drivers: Vec<Driver>,
    /// How much of the disk a rebuilt snapshot leaves free, in bytes.
    reserve: u64,
    /// Whether a containerd has used the same folders.
    is_shared: bool,
}

/// What an operator does about what images need and is not here.
fn again(images: &[String]) -> String {
    format!("pull again {}", report::some(images))
}

/// Looks at everything below the root of `config`; with `repairs` it mends what can be mended. Each
/// finding goes to `tell` when it is found, and after its repair.
///
/// # Errors
/// Why nothing could be looked at, and what to do: a running daemon, a damaged database, a folder
/// that is none of wherryd's.
pub fn verify(
    config: &Config,
    repairs: bool,
    progress: &Progress,
    tell: &mut dyn FnMut(&Finding),
) -> Result<Outcome, String> {
    let database = config.own_folder().join("meta.redb");
    if !database.exists() {
        return Err(format!(
            "root folder {}: wherryd has no records here (there is no {})",
            config.root.display(),
            database.display()
        ));
    }
    let store = Store::open(&database).map_err(|error| {
        let stop = if error.contains("in use by") {
            "; stop it and run verify again (containers go on running)"
        } else {
            ""
        };
        format!("{error}{stop}")
    })?;
    let content = config.root.join(content::FOLDER);
    let parts = Parts {
        store: &store,
        blobs: Blobs::at(&content),
        content,
        drivers: [Layout::Overlay, Layout::Native]
            .map(|layout| Driver::new(layout, config))
            .into(),
        reserve: config.unpack_reserve as u64,
        is_shared: crate::store::containerd_was(&config.root),
    };
    let mut report = Report::new(repairs, tell);
    if repairs {
        crate::diff::mounts::recover(&crate::diff::scratch(&config.root));
    }
    // Before the blobs: an upload that was about to become one shares its file.
    uploads::check(&parts, &mut report);
    let records = Records::read(&store)?;
    rest::check_rows(&parts, &records, &mut report);
    let states = blobs::examine(&parts, &records, progress);
    let needs = images::check(&parts, &records, &states, &mut report);
    blobs::check(&parts, &records, &states, &needs, &mut report);
    let mounts = Mounts::read();
    snapshots::Check::new(&parts, &records, &states, &needs, &mounts).run(progress, &mut report);
    // Repairs may have changed what the rest is held against.
    let now = if repairs {
        Records::read(&store)?
    } else {
        records
    };
    rest::check(&parts, &now, &needs, &mut report);
    progress.clear();
    Ok(Outcome {
        problems: report.problems(),
        sum: format!(
            "{} blobs, {} snapshots, {} images: {}",
            states.len(),
            now.snapshots.len(),
            now.images.len(),
            report.sum()
        ),
    })
}
