//! Namespaces: labels by name, and the rule that a namespace in use stays.

use std::collections::BTreeMap;

use core_api::namespaces::Namespace;
use prost::Message;
use redb::{ReadableTable, WriteTransaction};
use tonic::Status;

use super::{
    CONTAINERS, Failure, LEASE_RESOURCES, LEASES, NAMESPACES, Store, below, decode, snapshots,
};
use crate::{ids, status};

fn unknown(name: &str) -> Failure {
    status::not_found(format_args!("namespace {name:?}")).into()
}

/// Makes sure that `name` exists: whatever is created in a namespace brings it about.
pub(super) fn ensure(transaction: &WriteTransaction, name: &str) -> Result<(), Failure> {
    let mut table = transaction.open_table(NAMESPACES)?;
    if table.get(name)?.is_none() {
        let namespace = Namespace {
            name: name.to_owned(),
            labels: BTreeMap::new(),
        };
        table.insert(name, namespace.encode_to_vec().as_slice())?;
    }
    Ok(())
}

impl Store {
    /// The namespace `name`; one that nobody has made is one without labels, which is how Docker
    /// knows that it may use it.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be a name.
    pub fn namespace(&self, name: &str) -> Result<Namespace, Status> {
        ids::check(name)?;
        self.read(|transaction| {
            let table = transaction.open_table(NAMESPACES)?;
            match table.get(name)? {
                Some(found) => decode(found.value()),
                None => Ok(Namespace {
                    name: name.to_owned(),
                    labels: BTreeMap::new(),
                }),
            }
        })
    }

    /// All namespaces by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn namespaces(&self) -> Result<Vec<Namespace>, Status> {
        self.read(|transaction| {
            let table = transaction.open_table(NAMESPACES)?;
            let mut found = Vec::new();
            for entry in table.iter()? {
                found.push(decode(entry?.1.value())?);
            }
            Ok(found)
        })
    }

    /// Stores a new namespace.
    ///
    /// # Errors
    /// `AlreadyExists`, or `InvalidArgument` for its name or labels.
    pub async fn create_namespace(&self, mut new: Namespace) -> Result<Namespace, Status> {
        ids::check(&new.name)?;
        ids::check_labels(&new.labels)?;
        new.labels = ids::without_empty(new.labels);
        self.write(move |transaction| {
            let mut table = transaction.open_table(NAMESPACES)?;
            if table.get(new.name.as_str())?.is_some() {
                return Err(
                    status::already_exists(format_args!("namespace {:?}", new.name)).into(),
                );
            }
            table.insert(new.name.as_str(), new.encode_to_vec().as_slice())?;
            Ok(new)
        })
        .await
    }

    /// Changes labels: those that `paths` names (`labels` or `labels.KEY`), all when it is empty.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path or a label that is too long.
    pub async fn update_namespace(
        &self,
        wanted: Namespace,
        paths: Vec<String>,
    ) -> Result<Namespace, Status> {
        ids::check_labels(&wanted.labels)?;
        self.write(move |transaction| {
            let mut table = transaction.open_table(NAMESPACES)?;
            let mut namespace: Namespace = {
                let name = wanted.name.as_str();
                let found = table.get(name)?.ok_or_else(|| unknown(name))?;
                decode(found.value())?
            };
            if paths.is_empty() {
                namespace.labels = wanted.labels.clone();
            }
            for path in &paths {
                if path == "labels" {
                    namespace.labels = wanted.labels.clone();
                } else if let Some(key) = path.strip_prefix("labels.") {
                    let value = wanted.labels.get(key).cloned().unwrap_or_default();
                    namespace.labels.insert(key.to_owned(), value);
                } else {
                    let text = format!("cannot update {path:?} field");
                    return Err(status::invalid(text).into());
                }
            }
            namespace.labels = ids::without_empty(namespace.labels);
            table.insert(wanted.name.as_str(), namespace.encode_to_vec().as_slice())?;
            Ok(namespace)
        })
        .await
    }

    /// Removes a namespace, and the leases in it, which hold nothing then.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while there are containers or snapshots in it.
    pub async fn delete_namespace(&self, name: String) -> Result<(), Status> {
        self.write(move |transaction| {
            let (from, to) = below(&name);
            let containers = transaction.open_table(CONTAINERS)?;
            if containers
                .range(from.as_str()..to.as_str())?
                .next()
                .is_some()
            {
                let text = format!("namespace {name:?} must be empty, but it still has containers");
                return Err(status::precondition(text).into());
            }
            let snapshots = transaction.open_table(snapshots::SNAPSHOTS)?;
            if snapshots
                .range(from.as_str()..to.as_str())?
                .next()
                .is_some()
            {
                let text = format!("namespace {name:?} must be empty, but it still has snapshots");
                return Err(status::precondition(text).into());
            }
            if transaction
                .open_table(NAMESPACES)?
                .remove(name.as_str())?
                .is_none()
            {
                return Err(unknown(&name));
            }
            for table in [LEASES, LEASE_RESOURCES] {
                let mut table = transaction.open_table(table)?;
                table.retain_in(from.as_str()..to.as_str(), |_, _| false)?;
            }
            Ok(())
        })
        .await
    }
}
