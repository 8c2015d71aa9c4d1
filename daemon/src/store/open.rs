//! Opening the database: the lock that keeps a second daemon out, the check of every page, and what
//! to tell an operator whose file is damaged.

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, DatabaseError, StorageError, TableDefinition};

/// What the store may keep of the file in memory, in bytes: the page cache has the rest.
const CACHE: usize = 512 << 10;
/// Where a containerd keeps its metadata, beside our folder below the same root.
const CONTAINERD: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// Why the database could not be opened.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another process has it.
    InUse,
    /// It is there, and not a database that makes sense.
    Damaged(String),
    /// The disk is full.
    Full(io::Error),
    /// Something else, as it is told.
    Other(String),
}

impl Trouble {
    /// The trouble with the database at `path`, for an operator.
    pub(super) fn tell(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::InUse => format!("{path}: in use by another daemon"),
            Self::Damaged(what) => format!(
                "{path}: damaged: {what}. Restore it from a backup, or move it away to start \
                 with empty metadata (running containers stay, and are listed as tasks)"
            ),
            Self::Full(error) => format!("{path}: {error}"),
            Self::Other(what) => format!("{path}: {what}"),
        }
    }
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        use io::ErrorKind::{InvalidData, StorageFull, UnexpectedEof};
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            DatabaseError::UpgradeRequired(version) => Self::Damaged(format!(
                "it is in format {version}, which this version cannot read"
            )),
            DatabaseError::RepairAborted => Self::Damaged("its repair was given up".to_owned()),
            DatabaseError::Storage(StorageError::Corrupted(what)) => Self::Damaged(what),
            DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
                StorageFull => Self::Full(error),
                // Rubbish in place of the header, or a file that was cut.
                InvalidData | UnexpectedEof => Self::Damaged(error.to_string()),
                _ => Self::Other(error.to_string()),
            },
            error => Self::Other(error.to_string()),
        }
    }
}

/// Opens the database at `path`, or makes it, with `tables` in it. A file that is empty counts as
/// none: a daemon may have been killed just when it had made it.
pub(super) fn open(
    path: &Path,
    tables: &[TableDefinition<'_, &str, &[u8]>],
) -> Result<Database, Trouble> {
    let before = fs::metadata(path).map_or(0, |meta| meta.len());
    let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Database, DatabaseError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        // Otherwise a page that the disk has garbled would be believed.
        builder.set_check_integrity_on_open(true);
        builder.set_repair_callback(|_| log::debug!("metadata: repairing"));
        let database = builder.create(path)?;
        if before == 0 {
            make(&database, tables).map_err(into_storage)?;
        }
        Ok(database)
    }));
    match opened {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(Trouble::Damaged(
            "its pages contradict each other".to_owned(),
        )),
    }
}

fn make(
    database: &Database,
    tables: &[TableDefinition<'_, &str, &[u8]>],
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in tables {
        transaction.open_table(*table)?;
    }
    transaction.commit()?;
    Ok(())
}

fn into_storage(error: redb::Error) -> DatabaseError {
    match error {
        redb::Error::Io(error) => StorageError::Io(error).into(),
        error => StorageError::Corrupted(error.to_string()).into(),
    }
}

/// Whether a containerd has ever kept its records below this root folder.
pub(super) fn containerd_was(root: &Path) -> bool {
    root.join(CONTAINERD).exists()
}

/// Whether a containerd runs on this root folder: it holds a lock on its own database.
pub(super) fn containerd_runs(root: &Path) -> bool {
    let Ok(file) = File::open(root.join(CONTAINERD)) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}
