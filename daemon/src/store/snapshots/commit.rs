//! Active snapshots become committed ones.

use std::time::SystemTime;

use core_api::snapshots::Kind;
use prost::Message;
use redb::ReadableTable;
use tonic::Status;

use super::record::{Commit, Record, Scope};
use super::{CHILDREN, SNAPSHOTS, check_key, find, taken, unknown};
use crate::store::{Failure, Store, leases};
use crate::{ids, status};

fn committable(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    scope: &Scope,
    key: &str,
    name: &str,
) -> Result<Record, Failure> {
    if find(table, scope, name)?.is_some() {
        return Err(taken(name));
    }
    let record = find(table, scope, key)?.ok_or_else(|| unknown(key))?;
    if record.kind() != Kind::Active {
        return Err(status::precondition(format_args!("snapshot {key} is not active")).into());
    }
    if !record.hollow.is_empty() {
        let reason = if record.hollow == name {
            "which is gone: apply the layer again"
        } else {
            "and can have no other name"
        };
        let text = format!(
            "snapshot {key} is empty: its layer was unpacked already, as {}, {reason}",
            record.hollow
        );
        return Err(status::precondition(text).into());
    }
    Ok(record)
}

impl Store {
    /// Makes an active snapshot a committed one under another key.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` for the name; `FailedPrecondition` unless it is active and has
    /// what was applied to it.
    pub async fn commit_snapshot(&self, scope: Scope, commit: Commit) -> Result<(), Status> {
        self.check_commit(&scope, &commit.key, &commit.name)?;
        ids::check_labels(&commit.labels)?;
        self.write(move |transaction| {
            let Commit { key, name, .. } = &commit;
            let mut table = transaction.open_table(SNAPSHOTS)?;
            let record = committable(&table, &scope, key, name)?;
            if record.number != commit.number {
                let text = format!("snapshot {key} was removed and made again meanwhile");
                return Err(Status::aborted(text).into());
            }
            let now = Some(SystemTime::now().into());
            let committed = Record {
                kind: Kind::Committed.into(),
                created: now,
                updated: now,
                labels: ids::without_empty(commit.labels.clone()),
                size: commit.size,
                inodes: commit.inodes,
                unpacked: commit.unpacked.clone(),
                ..record
            };
            table.remove(scope.key(key).as_str())?;
            table.insert(
                scope.key(name).as_str(),
                committed.encode_to_vec().as_slice(),
            )?;
            if !committed.parent.is_empty() {
                let mut children = transaction.open_table(CHILDREN)?;
                children.remove(scope.child(&committed.parent, key).as_str())?;
                let child = scope.child(&committed.parent, name);
                children.insert(child.as_str(), [].as_slice())?;
            }
            if let Some(lease) = &scope.lease {
                let (kind, namespace) = (scope.resource(), &scope.namespace);
                leases::pin(transaction, namespace, lease, &kind, name)?;
                leases::unpin(transaction, namespace, lease, &kind, key)?;
            }
            Ok(())
        })
        .await
    }

    /// The snapshot `key` if it can be committed as `name`.
    ///
    /// # Errors
    /// As [`Store::commit_snapshot`].
    pub fn check_commit(&self, scope: &Scope, key: &str, name: &str) -> Result<Record, Status> {
        check_key("name", name)?;
        self.read(|transaction| committable(&transaction.open_table(SNAPSHOTS)?, scope, key, name))
    }

    /// Lets the lease of `scope` hold a snapshot that is there already.
    ///
    /// # Errors
    /// `NotFound` for the snapshot or the lease.
    pub async fn hold_snapshot(&self, scope: Scope, key: String) -> Result<(), Status> {
        let Some(lease) = scope.lease.clone() else {
            return Ok(());
        };
        self.write(move |transaction| {
            let table = transaction.open_table(SNAPSHOTS)?;
            find(&table, &scope, &key)?.ok_or_else(|| unknown(&key))?;
            let kind = scope.resource();
            leases::pin(transaction, &scope.namespace, &lease, &kind, &key)
        })
        .await
    }
}
