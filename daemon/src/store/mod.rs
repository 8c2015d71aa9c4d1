//! The daemon's metadata on disk: namespaces, containers and leases in one redb file.
//!
//! Tables are flat; the key of an object is its namespace, a NUL and its id, and ids contain no
//! NUL. Values are the encoded messages of the API, so that what a client stored comes back byte
//! for byte. A write is on disk before it is acknowledged. Writes run on the blocking pool, since
//! they wait for the disk; reads are short and come from the page cache.

pub mod containers;
pub mod leases;
pub mod namespaces;
pub mod snapshots;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use prost::Message;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    WriteTransaction,
};
use tonic::Status;

/// The name of a namespace to its labels.
const NAMESPACES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("namespaces");
/// Namespace and id to the record of a container.
const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");
/// Namespace and id to a lease.
const LEASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("leases");
/// Namespace, lease, type and id of what a lease holds.
const LEASE_RESOURCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("lease-resources");

/// What the store may keep of the file in memory, in bytes: the page cache has the rest.
const CACHE: usize = 512 << 10;

/// The open database; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    path: Arc<PathBuf>,
    /// `None` only while it is being opened anew after an I/O error.
    database: Arc<RwLock<Option<Database>>>,
}

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
    /// Opens the database at `path`, or makes it.
    ///
    /// # Errors
    /// A text that names the file and says what is wrong: in use by another daemon, damaged, or
    /// not accessible.
    pub fn open(path: &Path) -> Result<Self, String> {
        let database = open(path)?;
        let write = || -> Result<(), Failure> {
            let transaction = database.begin_write()?;
            for table in [NAMESPACES, CONTAINERS, LEASES, LEASE_RESOURCES] {
                transaction.open_table(table)?;
            }
            for table in [
                snapshots::SNAPSHOTS,
                snapshots::CHILDREN,
                snapshots::NUMBERS,
            ] {
                transaction.open_table(table)?;
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|failure| format!("{}: {failure:?}", path.display()))?;
        Ok(Self {
            path: Arc::new(path.to_owned()),
            database: Arc::new(RwLock::new(Some(database))),
        })
    }

    /// Reads in one consistent view.
    ///
    /// # Errors
    /// What `work` refuses with; `Internal` when the database fails.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, Status> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*database else {
            return Err(Status::unavailable("the metadata is being reopened"));
        };
        database
            .begin_read()
            .map_err(Failure::from)
            .and_then(|transaction| work(&transaction))
            .map_err(|failure| self.answer(failure))
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
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            store.revive()?;
            let database = store
                .database
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let Some(database) = &*database else {
                return Err(Status::unavailable("the metadata is being reopened"));
            };
            let change = || -> Result<T, Failure> {
                let transaction = database.begin_write()?;
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            };
            change().map_err(|failure| store.answer(failure))
        });
        done.await
            .unwrap_or_else(|error| Err(Status::internal(format!("metadata: {error}"))))
    }

    /// Opens the database anew if an I/O error has closed it: redb refuses everything after one,
    /// and what was committed before is safe on disk.
    fn revive(&self) -> Result<(), Status> {
        let poisoned = match self.database.read().as_deref() {
            Ok(Some(database)) => matches!(
                database.begin_write().map(drop),
                Err(redb::TransactionError::Storage(StorageError::PreviousIo))
            ),
            _ => true,
        };
        if !poisoned {
            return Ok(());
        }
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *database = None;
        *database = Some(open(&self.path).map_err(Status::internal)?);
        Ok(())
    }

    fn answer(&self, failure: Failure) -> Status {
        let error = match failure {
            Failure::Refused(status) => return status,
            Failure::Storage(error) => error,
        };
        log::error!("metadata in {}: {error}", self.path.display());
        let text = format!("metadata: {error}");
        match error {
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Status::resource_exhausted(text)
            }
            _ => Status::internal(text),
        }
    }
}

fn open(path: &Path) -> Result<Database, String> {
    Database::builder()
        .set_cache_size(CACHE)
        .create(path)
        .map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                format!("{}: in use by another daemon", path.display())
            }
            error => format!(
                "{}: {error}; move the file away to start with empty metadata (running \
                 containers stay)",
                path.display()
            ),
        })
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
