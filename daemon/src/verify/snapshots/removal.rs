//! What is removed: snapshots that are broken and cannot be made anew, and folders without a record.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use core_api::snapshots::Kind;

use super::super::again;
use super::super::records::SnapshotKey;
use super::super::report::{Grade, Repair, Report, some};
use super::{Check, child_row, row, subject};
use crate::snapshot::driver::{self, Driver};
use crate::store::audit::{Edit, Table};

impl Check<'_> {
    /// A snapshot and all that stand on it.
    fn family(&self, key: &SnapshotKey) -> Vec<SnapshotKey> {
        let mut family = vec![key.clone()];
        let mut at = 0;
        while let Some(member) = family.get(at) {
            at += 1;
            for child in self.children.get(member).into_iter().flatten() {
                if !family.contains(child) {
                    family.push(child.clone());
                }
            }
            if at > self.records.snapshots.len() {
                break;
            }
        }
        family
    }

    /// A committed snapshot that is broken and cannot be made anew from what is here. Nothing but
    /// its removal makes a pull unpack it again; where something is in the way of that, the pull
    /// brings its layer at least. Others are named.
    pub(super) fn hopeless(&mut self, key: &SnapshotKey, what: &str, report: &mut Report<'_>) {
        self.bad.insert(key.clone());
        if self.gone.contains(key) {
            return;
        }
        let family = self.family(key);
        let standing: Vec<&SnapshotKey> = family
            .iter()
            .filter(|member| {
                let record = self.records.snapshots.get(member);
                record.is_some_and(|record| record.kind() != Kind::Committed)
            })
            .collect();
        let layers = self.needs.layers(&key.0, &key.2).iter();
        let images: BTreeSet<String> = layers
            .flat_map(|layer| self.needs.images(&key.0, &layer.digest))
            .collect();
        let images: Vec<String> = images.into_iter().collect();
        let pull = if images.is_empty() {
            "pull again the image that it belongs to".to_owned()
        } else {
            again(&images)
        };
        if !standing.is_empty() {
            let users = standing.iter().map(|member| match self.container(member) {
                Some(id) => format!("container {id}"),
                None => subject(member),
            });
            let users = some(users);
            let remedy = if standing.contains(&key) {
                format!("remove {users}, and make it again")
            } else {
                format!(
                    "{users} stands on it: {pull} and run verify --repair again, or remove {users} \
                     first"
                )
            };
            report.problem(subject(key), what, remedy);
            return;
        }
        let shown = family
            .iter()
            .filter_map(|member| Some((self.driver(member)?, &self.records.snapshots[member])))
            .find_map(|(driver, record)| self.mounts.showing(&driver.folder(record.number)));
        if let Some(at) = shown {
            let remedy = format!("it is mounted at {}: stop what runs there", at.display());
            report.problem(subject(key), what, remedy);
            return;
        }
        let plan = "forgets it, and what stands on it, so that the next pull unpacks it again";
        let repair = Repair::new(plan, || {
            self.forget(&family)?;
            let count = family.len();
            Ok(format!("forgotten, {count} with what stands on it; {pull}"))
        });
        if report.mend(Grade::Problem, subject(key), what, repair, String::new()) {
            self.gone.extend(family);
        }
    }

    /// Removes records, all at once, and then the folders.
    fn forget(&self, family: &[SnapshotKey]) -> Result<(), String> {
        let mut edits = Vec::new();
        for key in family {
            let record = &self.records.snapshots[key];
            edits.push(Edit::remove(Table::Snapshots, row(key)));
            if !record.parent.is_empty() {
                let child = child_row(key, &record.parent);
                edits.push(Edit::remove(Table::Children, child));
            }
        }
        self.edit(edits)?;
        for key in family {
            if let Some(driver) = self.driver(key) {
                let folder = driver.folder(self.records.snapshots[key].number);
                remove(&folder)?;
            }
        }
        Ok(())
    }

    /// Folders without a record, which the daemon removes at its start.
    pub(super) fn orphans(&self, driver: &Driver, report: &mut Report<'_>) {
        if !driver.exists() {
            return;
        }
        let name = driver.layout.name();
        let snapshots = self.records.snapshots.iter();
        let known: HashSet<u64> = snapshots
            .filter(|(key, _)| key.1 == name && !self.gone.contains(*key))
            .map(|(_, record)| record.number)
            .collect();
        let unreadable = self.records.unreadable.iter();
        if unreadable
            .clone()
            .any(|(table, _)| *table == Table::Snapshots)
        {
            // A folder may be that of a record which cannot be read.
            return;
        }
        let found = match driver.orphans(&known) {
            Ok(found) => found,
            Err(refusal) => {
                let subject = format!("folders of {name}");
                report.problem(subject, refusal.message(), String::new());
                return;
            }
        };
        if driver.is_shared() && !found.is_empty() {
            let text = format!(
                "{} folders without a record are left alone: containerd used this folder too",
                found.len()
            );
            report.note(format!("folders of {name}"), text);
            return;
        }
        for folder in found {
            let subject = format!("folder {}", folder.display());
            if let Some(at) = self.mounts.showing(&folder) {
                let text = format!("has no record, and is mounted at {}", at.display());
                report.note(subject, text);
                continue;
            }
            let text = "has no record; the daemon removes it at its next start";
            let repair = Repair::new("removes it", || {
                remove(&folder)?;
                Ok("removed".to_owned())
            });
            report.mend(Grade::Note, subject, text, repair, String::new());
        }
    }
}

fn remove(folder: &Path) -> Result<(), String> {
    if fs::symlink_metadata(folder).is_err() {
        return Ok(());
    }
    driver::remove(folder).map_err(|error| format!("{}: {error}", folder.display()))
}
