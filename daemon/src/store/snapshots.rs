//! What is known of snapshots: which stand on which, who made them, how large they are. The trees
//! themselves are folders, numbered per snapshotter; see `crate::snapshot`.
//!
//! Keys belong to a namespace and a snapshotter. Numbers are never used twice, so a folder whose
//! number no record has is a left-over and nothing else.

mod commit;
mod extraction;
mod record;

use std::collections::HashSet;
use std::time::SystemTime;

use core_api::snapshots::{Info, Kind};
use prost::Message;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use tonic::Status;

use super::{Failure, Store, below, decode, leases, namespaces};
use crate::filter::Filters;
use crate::{ids, status};

pub use extraction::Extraction;
use record::Named;
pub use record::{Chain, Commit, Record, Scope, Unpacked};

/// Namespace, snapshotter and key to the record of a snapshot.
pub(super) const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
/// Namespace, snapshotter, parent and key of each snapshot that stands on another.
pub(super) const CHILDREN: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("snapshot-children");
/// Snapshotter to the last number it has given.
pub(super) const NUMBERS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("snapshot-numbers");

fn unknown(key: &str) -> Failure {
    status::not_found(format_args!("snapshot {key} does not exist")).into()
}

fn taken(key: &str) -> Failure {
    status::already_exists(format_args!("snapshot {key:?}")).into()
}

fn check_key(what: &str, key: &str) -> Result<(), Status> {
    if key.is_empty() || key.contains('\0') {
        return Err(status::invalid(format_args!("snapshot {what} must be set")));
    }
    Ok(())
}

fn find(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    scope: &Scope,
    key: &str,
) -> Result<Option<Record>, Failure> {
    let found = table.get(scope.key(key).as_str())?;
    found.map(|found| decode(found.value())).transpose()
}

/// The snapshot and the numbers of those it stands on.
fn chain(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    scope: &Scope,
    key: &str,
) -> Result<Chain, Failure> {
    let record = find(table, scope, key)?.ok_or_else(|| unknown(key))?;
    let mut parents = Vec::new();
    let mut seen = HashSet::new();
    let mut next = record.parent.clone();
    while !next.is_empty() {
        let parent = find(table, scope, &next)?.ok_or_else(|| {
            let text = format!("snapshot {key}: its parent {next} is not there any more");
            Failure::from(Status::data_loss(text))
        })?;
        if !seen.insert(parent.number) {
            let text = format!("snapshot {key}: its parents go round in a circle");
            return Err(Status::data_loss(text).into());
        }
        parents.push(parent.number);
        next = parent.parent;
    }
    Ok(Chain { record, parents })
}

/// The parent that a new snapshot is to stand on, checked.
fn parent_chain(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    scope: &Scope,
    parent: &str,
) -> Result<Vec<u64>, Failure> {
    if parent.is_empty() {
        return Ok(Vec::new());
    }
    if find(table, scope, parent)?.is_none() {
        return Err(
            status::not_found(format_args!("parent snapshot {parent} does not exist")).into(),
        );
    }
    let Chain { record, parents } = chain(table, scope, parent)?;
    if record.kind() != Kind::Committed {
        let text = format!("parent {parent:?} is not committed snapshot");
        return Err(status::invalid(text).into());
    }
    Ok([vec![record.number], parents].concat())
}

fn next_number(
    transaction: &WriteTransaction,
    snapshotter: &str,
    is_free: impl Fn(u64) -> bool,
) -> Result<u64, Failure> {
    let mut table = transaction.open_table(NUMBERS)?;
    let last = match table.get(snapshotter)? {
        Some(last) => last.value().try_into().map_or(0, u64::from_be_bytes),
        None => 0,
    };
    let mut next = last + 1;
    while !is_free(next) {
        next += 1;
    }
    table.insert(snapshotter, next.to_be_bytes().as_slice())?;
    Ok(next)
}

impl Store {
    /// The numbers of the folders that a snapshot on `parent` stands on, nearest first, and that
    /// `key` is free. It may not be so any more when the snapshot is made.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for the parent, `InvalidArgument` where it is not committed.
    pub fn snapshot_parents(
        &self,
        scope: &Scope,
        key: &str,
        parent: &str,
    ) -> Result<Vec<u64>, Status> {
        check_key("key", key)?;
        self.read(|transaction| {
            let table = transaction.open_table(SNAPSHOTS)?;
            if find(&table, scope, key)?.is_some() {
                return Err(taken(key));
            }
            parent_chain(&table, scope, parent)
        })
    }

    /// Stores a new snapshot with the next number that `is_free`. `place` is called with it,
    /// within the transaction, to give the prepared folder its name.
    ///
    /// # Errors
    /// As [`Store::snapshot_parents`]; `InvalidArgument` for labels; what `place` answers.
    pub async fn create_snapshot(
        &self,
        scope: Scope,
        key: String,
        mut record: Record,
        is_free: impl Fn(u64) -> bool + Send + 'static,
        place: impl FnOnce(u64) -> Result<(), Status> + Send + 'static,
    ) -> Result<Chain, Status> {
        check_key("key", &key)?;
        ids::check_labels(&record.labels)?;
        record.labels = ids::without_empty(record.labels);
        record.created = Some(SystemTime::now().into());
        record.updated = record.created;
        self.write(move |transaction| {
            namespaces::ensure(transaction, &scope.namespace)?;
            let mut table = transaction.open_table(SNAPSHOTS)?;
            if find(&table, &scope, &key)?.is_some() {
                return Err(taken(&key));
            }
            let parents = parent_chain(&table, &scope, &record.parent)?;
            record.number = next_number(transaction, &scope.snapshotter, is_free)?;
            table.insert(scope.key(&key).as_str(), record.encode_to_vec().as_slice())?;
            if !record.parent.is_empty() {
                transaction
                    .open_table(CHILDREN)?
                    .insert(scope.child(&record.parent, &key).as_str(), [].as_slice())?;
            }
            if let Some(lease) = &scope.lease {
                let kind = scope.resource();
                leases::pin(transaction, &scope.namespace, lease, &kind, &key)?;
            }
            place(record.number)?;
            Ok(Chain { record, parents })
        })
        .await
    }

    /// A snapshot with the numbers of its parents.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn snapshot(&self, scope: &Scope, key: &str) -> Result<Chain, Status> {
        self.read(|transaction| chain(&transaction.open_table(SNAPSHOTS)?, scope, key))
    }

    /// The record of a snapshot alone.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn snapshot_record(&self, scope: &Scope, key: &str) -> Result<Record, Status> {
        self.read(|transaction| {
            find(&transaction.open_table(SNAPSHOTS)?, scope, key)?.ok_or_else(|| unknown(key))
        })
    }

    /// The snapshots that pass `filters`, by key.
    ///
    /// # Errors
    /// Those of the database.
    pub fn snapshots(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>, Status> {
        self.read(|transaction| {
            let table = transaction.open_table(SNAPSHOTS)?;
            let prefix = scope.prefix();
            let (from, to) = below(&prefix);
            let mut found = Vec::new();
            for entry in table.range(from.as_str()..to.as_str())? {
                let (key, value) = entry?;
                let record: Record = decode(value.value())?;
                let key = &key.value()[prefix.len() + 1..];
                if filters.hold(&Named(key, &record)) {
                    found.push(record.info(key));
                }
            }
            Ok(found)
        })
    }

    /// Every snapshot of every namespace and snapshotter: where it belongs, its key, its record.
    ///
    /// # Errors
    /// Those of the database.
    pub fn all_snapshots(&self) -> Result<Vec<(Scope, String, Record)>, Status> {
        self.read(|transaction| {
            let table = transaction.open_table(SNAPSHOTS)?;
            let mut found = Vec::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                let mut parts = key.value().splitn(3, '\0').map(str::to_owned);
                let (Some(namespace), Some(snapshotter), Some(key)) =
                    (parts.next(), parts.next(), parts.next())
                else {
                    continue;
                };
                let scope = Scope {
                    namespace,
                    snapshotter,
                    lease: None,
                };
                found.push((scope, key, decode(value.value())?));
            }
            Ok(found)
        })
    }

    /// Changes labels: those that `paths` names, all when it is empty.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path or a label that is too long.
    pub async fn update_snapshot(
        &self,
        scope: Scope,
        wanted: Info,
        paths: Vec<String>,
    ) -> Result<Info, Status> {
        check_key("name", &wanted.name)?;
        self.write(move |transaction| {
            let mut table = transaction.open_table(SNAPSHOTS)?;
            let mut record =
                find(&table, &scope, &wanted.name)?.ok_or_else(|| unknown(&wanted.name))?;
            ids::update_labels(&mut record.labels, &wanted.labels, &paths, |path| {
                format!("cannot update {path:?} field on snapshot {:?}", wanted.name)
            })?;
            record.updated = Some(SystemTime::now().into());
            table.insert(
                scope.key(&wanted.name).as_str(),
                record.encode_to_vec().as_slice(),
            )?;
            Ok(record.info(&wanted.name))
        })
        .await
    }

    /// Forgets a snapshot and answers its number; its folder is garbage from then on. The lease of
    /// `scope` lets go of it.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while another stands on it.
    pub async fn remove_snapshot(&self, scope: Scope, key: String) -> Result<u64, Status> {
        self.write(move |transaction| {
            let number = forget_snapshot(transaction, &scope, &key)?;
            if let Some(lease) = &scope.lease {
                let kind = scope.resource();
                leases::unpin(transaction, &scope.namespace, lease, &kind, &key)?;
            }
            Ok(number)
        })
        .await
    }

    /// The numbers that snapshots of `snapshotter` have, seen while no snapshot is being made;
    /// `work` is called with them before one can be made again.
    ///
    /// # Errors
    /// Those of the database and of `work`.
    pub async fn with_snapshot_numbers<T: Send + 'static>(
        &self,
        snapshotter: String,
        work: impl FnOnce(&HashSet<u64>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        self.write(move |transaction| {
            let table = transaction.open_table(SNAPSHOTS)?;
            let mut numbers = HashSet::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                if key.value().split('\0').nth(1) == Some(snapshotter.as_str()) {
                    numbers.insert(decode::<Record>(value.value())?.number);
                }
            }
            Ok(work(&numbers)?)
        })
        .await
    }
}

/// Forgets a snapshot within a transaction that may do more, and answers its number.
///
/// # Errors
/// As [`Store::remove_snapshot`].
pub fn forget_snapshot(
    transaction: &WriteTransaction,
    scope: &Scope,
    key: &str,
) -> Result<u64, Failure> {
    let mut table = transaction.open_table(SNAPSHOTS)?;
    let record = find(&table, scope, key)?.ok_or_else(|| unknown(key))?;
    let mut children = transaction.open_table(CHILDREN)?;
    let (from, to) = below(&scope.key(key));
    if children.range(from.as_str()..to.as_str())?.next().is_some() {
        return Err(status::precondition("cannot remove snapshot with child").into());
    }
    if !record.parent.is_empty() {
        children.remove(scope.child(&record.parent, key).as_str())?;
    }
    table.remove(scope.key(key).as_str())?;
    Ok(record.number)
}
