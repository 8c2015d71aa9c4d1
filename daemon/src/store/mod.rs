//! The daemon's metadata on disk: namespaces, containers and leases in one redb file.
//!
//! Tables are flat; the key of an object is its namespace, a NUL and its id, and ids contain no
//! NUL. Values are the encoded messages of the API, so that what a client stored comes back byte
//! for byte. A write is on disk before it is acknowledged. Writes run on the blocking pool, since
//! they wait for the disk, and those that come together go there together (`database.rs`); reads
//! are short and come from the page cache. ADR 0008 says why it is redb, and how it is used.

pub mod audit;
pub mod containers;
pub mod content;
mod database;
pub mod garbage;
pub mod images;
pub mod leases;
pub mod namespaces;
mod open;
pub mod snapshots;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use redb::{ReadTransaction, ReadableTable, StorageError, TableDefinition, WriteTransaction};
use tonic::Status;

use database::Shared;

/// The name of a namespace to its labels.
const NAMESPACES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("namespaces");
/// Namespace and id to the record of a container.
const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");
/// Namespace and id to a lease.
const LEASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("leases");
/// Namespace, lease, type and id of what a lease holds.
const LEASE_RESOURCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("lease-resources");

/// The open database; clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Shared>);

/// Why a transaction failed: refused by a rule, or by the disk.
#[derive(Debug)]
pub enum Failure {
    /// The answer to the client.
    Refused(Status),
    /// The database could not do it.
    Storage(redb::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

macro_rules! storage_failures {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Storage(error.into())
            }
        }
    )*};
}
storage_failures!(
    StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError
);

impl Store {
    /// Opens the database at `path`, or makes it. Its integrity is checked, and what the last
    /// daemon's sudden end has left is repaired.
    ///
    /// # Errors
    /// A text that names the file and says what is wrong and what to do: in use by another daemon,
    /// damaged, or not accessible.
    pub fn open(path: &Path) -> Result<Self, String> {
        Shared::open(path).map(|shared| Self(Arc::new(shared)))
    }

    /// Reads in one consistent view.
    ///
    /// # Errors
    /// What `work` refuses with; `Internal` when the database fails.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, Status> {
        self.0.read(work)
    }

    /// Changes things in one transaction, which is on disk when this returns.
    ///
    /// # Errors
    /// What `work` refuses with, and then nothing has changed; `ResourceExhausted` when the disk
    /// is full, `Internal` when the database fails otherwise.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Status> {
        self.write_on_disk(true, work).await
    }

    /// Changes things that may be lost if the daemon or the machine ends suddenly. They are seen at
    /// once, and are on disk with the next change that has to be.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_loosely<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Status> {
        self.write_on_disk(false, work).await
    }

    async fn write_on_disk<T: Send + 'static>(
        &self,
        lasting: bool,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Status> {
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || shared.write_in_turn(lasting, work))
            .await
            .unwrap_or_else(|error| Err(Status::internal(format!("metadata: {error}"))))
    }
}

/// Whether a containerd has kept its records below `root` as well: then files that no record of
/// ours names may be its own.
pub fn containerd_was(root: &Path) -> bool {
    open::containerd_was(root)
}

fn key(namespace: &str, id: &str) -> String {
    format!("{namespace}\0{id}")
}

/// The keys of everything in `namespace`, or below any other prefix.
fn below(prefix: &str) -> (String, String) {
    (format!("{prefix}\0"), format!("{prefix}\u{1}"))
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Failure> {
    M::decode(bytes).map_err(|error| Status::data_loss(format!("metadata: {error}")).into())
}

/// Every message of `table` below `prefix`.
fn list<M: Message + Default>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    prefix: &str,
) -> Result<Vec<M>, Failure> {
    let (from, to) = below(prefix);
    let mut found = Vec::new();
    for entry in table.range(from.as_str()..to.as_str())? {
        found.push(decode(entry?.1.value())?);
    }
    Ok(found)
}
