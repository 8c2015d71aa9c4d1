//! Snapshots: records, folders, and the tree of each committed one against the layer it was made
//! of. A pull never looks at a snapshot that is there already, so that one which is damaged stays
//! so until this mends it.

mod layers;
mod removal;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use core_api::snapshots::Kind;

use super::Parts;
use super::blobs::States;
use super::images::Needs;
use super::progress::Progress;
use super::records::{Records, SnapshotKey};
use super::report::{Grade, Repair, Report};
use crate::snapshot::driver::{Driver, Layout};
use crate::snapshot::in_use::Mounts;
use crate::store::audit::{Edit, Table};
use crate::store::snapshots::Record;

/// The check of all snapshots.
pub(super) struct Check<'a> {
    parts: &'a Parts<'a>,
    records: &'a Records,
    states: &'a States,
    needs: &'a Needs,
    mounts: &'a Mounts,
    children: BTreeMap<SnapshotKey, Vec<SnapshotKey>>,
    /// What is damaged still, or stands on what is.
    bad: BTreeSet<SnapshotKey>,
    /// What was forgotten.
    gone: BTreeSet<SnapshotKey>,
}

fn subject((ns, snapshotter, key): &SnapshotKey) -> String {
    format!("snapshot {snapshotter}/{key} ({ns})")
}

fn row((ns, snapshotter, key): &SnapshotKey) -> String {
    format!("{ns}\0{snapshotter}\0{key}")
}

fn child_row((ns, snapshotter, key): &SnapshotKey, parent: &str) -> String {
    format!("{ns}\0{snapshotter}\0{parent}\0{key}")
}

fn parent_of(key: &SnapshotKey, record: &Record) -> Option<SnapshotKey> {
    let parent = record.parent.clone();
    (!parent.is_empty()).then(|| (key.0.clone(), key.1.clone(), parent))
}

impl<'a> Check<'a> {
    pub(super) fn new(
        parts: &'a Parts<'a>,
        records: &'a Records,
        states: &'a States,
        needs: &'a Needs,
        mounts: &'a Mounts,
    ) -> Self {
        let mut children: BTreeMap<SnapshotKey, Vec<SnapshotKey>> = BTreeMap::new();
        for (key, record) in &records.snapshots {
            if let Some(parent) = parent_of(key, record) {
                children.entry(parent).or_default().push(key.clone());
            }
        }
        Self {
            parts,
            records,
            states,
            needs,
            mounts,
            children,
            bad: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Looks at everything, parents before those that stand on them.
    pub(super) fn run(mut self, progress: &Progress, report: &mut Report<'_>) {
        self.tables(report);
        let mut chains = Vec::new();
        for key in self.records.snapshots.keys() {
            match self.chain(key) {
                Ok(parents) => chains.push((parents, key.clone())),
                Err(why) => self.hopeless(key, &why, report),
            }
        }
        chains.sort_by_key(|(parents, _)| parents.len());
        let bytes = |key: &SnapshotKey| self.records.snapshots[key].size;
        let total = chains.iter().map(|(_, key)| bytes(key)).sum();
        progress.begin("comparing snapshots", total);
        for (parents, key) in &chains {
            if !self.gone.contains(key) {
                self.one(key, parents, progress, report);
            }
        }
        progress.clear();
        for driver in &self.parts.drivers {
            self.orphans(driver, report);
        }
    }

    fn driver(&self, key: &SnapshotKey) -> Option<&'a Driver> {
        let mut drivers = self.parts.drivers.iter();
        drivers.find(|driver| driver.layout.name() == key.1)
    }

    /// The numbers of the folders that a snapshot stands on, nearest first.
    fn chain(&self, key: &SnapshotKey) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        let mut seen = HashSet::new();
        let mut next = parent_of(key, &self.records.snapshots[key]);
        while let Some(parent) = next {
            let Some(record) = self.records.snapshots.get(&parent) else {
                return Err(format!("its parent {} is not there", parent.2));
            };
            if record.kind() != Kind::Committed {
                return Err(format!("its parent {} is not committed", parent.2));
            }
            if !seen.insert(parent.clone()) {
                return Err("its parents go round in a circle".to_owned());
            }
            numbers.push(record.number);
            next = parent_of(&parent, record);
        }
        Ok(numbers)
    }

    /// The tables beside the records: who stands on whom, and which numbers were given.
    fn tables(&self, report: &mut Report<'_>) {
        let mut edits = Vec::new();
        let wanted: BTreeSet<String> = self
            .records
            .snapshots
            .iter()
            .filter(|(_, record)| !record.parent.is_empty())
            .map(|(key, record)| child_row(key, &record.parent))
            .collect();
        for key in wanted.difference(&self.records.children) {
            edits.push(Edit::put(Table::Children, key.as_str(), Vec::new()));
        }
        for key in self.records.children.difference(&wanted) {
            edits.push(Edit::remove(Table::Children, key.as_str()));
        }
        let mut owners: HashMap<(&str, u64), &SnapshotKey> = HashMap::new();
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (key, record) in &self.records.snapshots {
            let highest = last.entry(&key.1).or_default();
            *highest = record.number.max(*highest);
            if let Some(other) = owners.insert((&key.1, record.number), key) {
                let text = format!("has the folder {} of {}", record.number, subject(other));
                report.problem(
                    subject(key),
                    text,
                    "remove both, and pull or make them again",
                );
            }
        }
        for (snapshotter, highest) in last {
            let given = self.records.numbers.get(snapshotter).copied();
            if given.unwrap_or(0) < highest {
                let value = highest.to_be_bytes().to_vec();
                edits.push(Edit::put(Table::Numbers, snapshotter, value));
            }
        }
        if edits.is_empty() {
            return;
        }
        let text = format!("{} records beside theirs contradict them", edits.len());
        let repair = Repair::new("makes them anew", || {
            self.edit(edits)?;
            Ok("made anew".to_owned())
        });
        let subject = "snapshots".to_owned();
        report.mend(Grade::Problem, subject, text, repair, String::new());
    }

    fn edit(&self, edits: Vec<Edit>) -> Result<(), String> {
        let done = self.parts.store.edit(edits);
        done.map_err(|refusal| refusal.message().to_owned())
    }

    fn one(
        &mut self,
        key: &SnapshotKey,
        parents: &[u64],
        progress: &Progress,
        report: &mut Report<'_>,
    ) {
        let record = &self.records.snapshots[key];
        let Some(driver) = self.driver(key) else {
            report.note(subject(key), "is of a snapshotter that is not here");
            return;
        };
        let on_bad = parent_of(key, record).is_some_and(|parent| self.bad.contains(&parent));
        if record.kind() != Kind::Committed {
            self.writable(driver, key, record, parents, report);
            return;
        }
        if on_bad && driver.layout == Layout::Native {
            // A copy of what is damaged cannot be told from a damaged copy.
            self.bad.insert(key.clone());
            return;
        }
        let layer = self.layer(key);
        let found = match &layer {
            Some(layer) if driver.tree(record.number).is_dir() => {
                self.compare(driver, record, parents, layer, progress)
            }
            _ => self.measure(driver, record),
        };
        let Some(what) = found else { return };
        let Some(layer) = layer else {
            self.hopeless(key, &what, report);
            return;
        };
        self.bad.insert(key.clone());
        if let Some(at) = self.mounts.showing(&driver.folder(record.number)) {
            let remedy = format!(
                "it is mounted at {}: stop what runs there, and run verify --repair again",
                at.display()
            );
            report.problem(subject(key), what, remedy);
            return;
        }
        let repair = Repair::new("makes it anew from its layer", || {
            self.rebuild(driver, key, parents, &layer)?;
            Ok(format!("made anew from layer {}", layer.digest))
        });
        if report.mend(Grade::Problem, subject(key), what, repair, String::new()) {
            self.bad.remove(key);
        }
    }

    /// An active snapshot or a view: what it needs to be mounted.
    fn writable(
        &self,
        driver: &Driver,
        key: &SnapshotKey,
        record: &Record,
        parents: &[u64],
        report: &mut Report<'_>,
    ) {
        let is_view = record.kind() == Kind::View;
        if driver.layout == Layout::Native && is_view && !parents.is_empty() {
            return;
        }
        let tree = driver.tree(record.number);
        if !tree.is_dir() {
            let text = format!("its folder {} is not there", tree.display());
            let remedy = match self.container(key) {
                Some(id) => format!("remove container {id} and make it again"),
                None => "remove it".to_owned(),
            };
            report.problem(subject(key), text, remedy);
            return;
        }
        let work = driver.folder(record.number).join("work");
        if driver.layout == Layout::Overlay && !is_view && !work.is_dir() {
            let text = format!("its folder {} is not there", work.display());
            let repair = Repair::new("makes it", || {
                let made = driver.make_work(record.number);
                made.map_err(|error| format!("{}: {error}", work.display()))?;
                Ok("made".to_owned())
            });
            report.mend(Grade::Problem, subject(key), text, repair, String::new());
        }
    }

    fn container(&self, key: &SnapshotKey) -> Option<&str> {
        let mut containers = self.records.containers.iter();
        containers
            .find(|(ns, container)| {
                (ns, &container.snapshotter, &container.snapshot_key) == (&key.0, &key.1, &key.2)
            })
            .map(|(_, container)| container.id.as_str())
    }
}
