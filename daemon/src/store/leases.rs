//! Leases and what they hold.

use std::borrow::Cow;
use std::time::SystemTime;

use core_api::leases::{Lease, Resource};
use prost::Message;
use redb::{ReadableTable, WriteTransaction};
use tonic::Status;

use super::{Failure, LEASE_RESOURCES, LEASES, Store, below, key, list, namespaces};
use crate::content::digest::is_digest;
use crate::filter::{Fields, Filters, in_map};
use crate::{ids, status};

impl Fields for Lease {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match (path[0].as_str(), &path[1..]) {
            ("id", _) => Some(self.id.as_str().into()),
            ("labels", rest) => in_map(&self.labels, rest),
            _ => None,
        }
    }
}

fn unknown(id: &str) -> Failure {
    status::not_found(format_args!("lease {id:?}")).into()
}

fn check_exists(transaction: &WriteTransaction, namespace: &str, id: &str) -> Result<(), Failure> {
    let table = transaction.open_table(LEASES)?;
    match table.get(key(namespace, id).as_str())? {
        Some(_) => Ok(()),
        None => Err(unknown(id)),
    }
}

/// Checks what a lease is to hold: `content` by its digest, an ingest by its reference, or a
/// snapshot (`snapshots/SNAPSHOTTER`) by its key.
fn check_resource(resource: &Resource) -> Result<(), Status> {
    let Resource { id, r#type: kind } = resource;
    let parts: Vec<&str> = kind.split('/').collect();
    match parts.as_slice() {
        ["content"] if !is_digest(id) => Err(status::invalid(format_args!(
            "content {id:?} is not named by a digest"
        ))),
        ["content"] | ["ingests"] => Ok(()),
        ["snapshots", name] if !name.is_empty() => Ok(()),
        ["content" | "ingests" | "snapshots", ..] => {
            Err(status::invalid(format_args!("resource type {kind:?}")))
        }
        _ => Err(status::unimplemented(format_args!(
            "resource type {kind:?}"
        ))),
    }?;
    if id.is_empty() || id.contains('\0') {
        return Err(status::invalid("resource id must not be empty"));
    }
    Ok(())
}

fn resource_key(namespace: &str, lease: &str, resource: &Resource) -> String {
    format!("{namespace}\0{lease}\0{}\0{}", resource.r#type, resource.id)
}

/// Lets `lease` hold what is being written under it.
///
/// # Errors
/// `NotFound` for the lease.
pub(super) fn pin(
    transaction: &WriteTransaction,
    namespace: &str,
    lease: &str,
    kind: &str,
    id: &str,
) -> Result<(), Failure> {
    check_exists(transaction, namespace, lease)?;
    let resource = Resource {
        id: id.to_owned(),
        r#type: kind.to_owned(),
    };
    let mut table = transaction.open_table(LEASE_RESOURCES)?;
    let key = resource_key(namespace, lease, &resource);
    table.insert(key.as_str(), resource.encode_to_vec().as_slice())?;
    Ok(())
}

/// Lets `lease` go of what is written.
pub(super) fn unpin(
    transaction: &WriteTransaction,
    namespace: &str,
    lease: &str,
    kind: &str,
    id: &str,
) -> Result<(), Failure> {
    let resource = Resource {
        id: id.to_owned(),
        r#type: kind.to_owned(),
    };
    let mut table = transaction.open_table(LEASE_RESOURCES)?;
    table.remove(resource_key(namespace, lease, &resource).as_str())?;
    Ok(())
}

impl Store {
    /// Stores a new lease of this moment.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for its id or labels.
    pub async fn create_lease(&self, namespace: String, mut new: Lease) -> Result<Lease, Status> {
        ids::check_labels(&new.labels)?;
        if new.id.is_empty() || new.id.len() > 4096 || new.id.chars().any(char::is_control) {
            return Err(status::invalid("lease id must be set, short and printable"));
        }
        new.labels = ids::without_empty(new.labels);
        new.created_at = Some(SystemTime::now().into());
        self.write(move |transaction| {
            namespaces::ensure(transaction, &namespace)?;
            let mut table = transaction.open_table(LEASES)?;
            let key = key(&namespace, &new.id);
            if table.get(key.as_str())?.is_some() {
                return Err(status::already_exists(format_args!("lease {:?}", new.id)).into());
            }
            table.insert(key.as_str(), new.encode_to_vec().as_slice())?;
            Ok(new)
        })
        .await
    }

    /// Removes a lease with its resources.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_lease(&self, namespace: String, id: String) -> Result<(), Status> {
        self.write(move |transaction| {
            let key = key(&namespace, &id);
            if transaction
                .open_table(LEASES)?
                .remove(key.as_str())?
                .is_none()
            {
                return Err(unknown(&id));
            }
            let (from, to) = below(&key);
            let mut resources = transaction.open_table(LEASE_RESOURCES)?;
            resources.retain_in(from.as_str()..to.as_str(), |_, _| false)?;
            Ok(())
        })
        .await
    }

    /// The leases that pass `filters`, by id.
    ///
    /// # Errors
    /// Those of the database.
    pub fn leases(&self, namespace: &str, filters: &Filters) -> Result<Vec<Lease>, Status> {
        let mut found: Vec<Lease> =
            self.read(|transaction| list(&transaction.open_table(LEASES)?, namespace))?;
        found.retain(|lease| filters.hold(lease));
        Ok(found)
    }

    /// Lets a lease hold a resource, or not any longer.
    ///
    /// # Errors
    /// `NotFound` for the lease; `Unimplemented` or `InvalidArgument` for the resource.
    pub async fn hold(
        &self,
        namespace: String,
        lease: String,
        resource: Resource,
        held: bool,
    ) -> Result<(), Status> {
        check_resource(&resource)?;
        self.write(move |transaction| {
            check_exists(transaction, &namespace, &lease)?;
            let mut table = transaction.open_table(LEASE_RESOURCES)?;
            let key = resource_key(&namespace, &lease, &resource);
            if held {
                table.insert(key.as_str(), resource.encode_to_vec().as_slice())?;
            } else {
                table.remove(key.as_str())?;
            }
            Ok(())
        })
        .await
    }

    /// What a lease holds.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn held(&self, namespace: &str, lease: &str) -> Result<Vec<Resource>, Status> {
        self.read(|transaction| {
            let key = key(namespace, lease);
            if transaction.open_table(LEASES)?.get(key.as_str())?.is_none() {
                return Err(unknown(lease));
            }
            list(&transaction.open_table(LEASE_RESOURCES)?, &key)
        })
    }
}
