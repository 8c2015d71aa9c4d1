//! The database in use: transactions, commits that several writers share, and its way back after
//! an error of the disk.
//!
//! Writers take turns. One that sees others behind it commits without waiting for the disk, and
//! then waits for the last of them, whose commit takes everybody's changes there: as many writes
//! as come together cost one turn of the disk. Nobody is answered before that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock};

use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction,
};
use tonic::Status;

use super::content::{BLOBS, CONTENT};
use super::images::IMAGES;
use super::open::{self, Trouble};
use super::snapshots::{CHILDREN, NUMBERS, SNAPSHOTS};
use super::{CONTAINERS, Failure, LEASE_RESOURCES, LEASES, NAMESPACES};

const TABLES: [TableDefinition<'_, &str, &[u8]>; 10] = [
    NAMESPACES,
    CONTAINERS,
    LEASES,
    LEASE_RESOURCES,
    CONTENT,
    BLOBS,
    IMAGES,
    SNAPSHOTS,
    CHILDREN,
    NUMBERS,
];
/// How many writes may share one commit to the disk, so that the first of them waits no longer
/// than it must.
const TOGETHER: usize = 32;

/// The database and those who write to it.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    /// `None` while it cannot be opened anew after an error.
    database: RwLock<Option<Database>>,
    /// An error of the disk, after which redb refuses everything: it must be opened anew.
    failed: AtomicBool,
    /// How often it has been opened anew.
    opened: AtomicU64,
    /// How many writers wait for their turn.
    behind: AtomicUsize,
    turn: Mutex<Turn>,
    settled: Condvar,
}

/// Whether the commit that several writers share has reached the disk; empty before it is tried.
type Outcome = OnceLock<Result<(), Status>>;

/// The state of the writers; who holds it has its turn.
#[derive(Debug, Default)]
struct Turn {
    /// How many writes wait for the next commit to disk.
    gathered: usize,
    /// How often the database had been opened anew when they were made.
    opened: u64,
    /// What becomes of them.
    outcome: Arc<Outcome>,
}

impl Turn {
    /// What was gathered is on disk now, or will not be.
    fn settle(&mut self, outcome: Result<(), Status>) {
        let _ = self.outcome.set(outcome);
        self.outcome = Arc::default();
        self.gathered = 0;
    }
}

impl Shared {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let root = path.parent().and_then(Path::parent).unwrap_or(path);
        if open::containerd_runs(root) {
            return Err(format!(
                "root folder {}: in use by a running containerd",
                root.display()
            ));
        }
        let database = open::open(path, &TABLES).map_err(|trouble| match trouble {
            Trouble::InUse => format!(
                "root folder {}: in use by another daemon, which has {} open",
                root.display(),
                path.display()
            ),
            trouble => trouble.tell(path),
        })?;
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            failed: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            behind: AtomicUsize::new(0),
            turn: Mutex::default(),
            settled: Condvar::new(),
        })
    }

    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, Status> {
        self.revive()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*database else {
            return Err(Status::unavailable("metadata: not accessible"));
        };
        let reading = || work(&database.begin_read()?);
        self.contained(reading)
    }

    /// Runs one write, which is on disk when this returns.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, Status> {
        self.write_in_turn(true, work)
    }

    /// Runs one write; when `lasting`, it is on disk when this returns, and otherwise with the next
    /// that is.
    pub(super) fn write_in_turn<T>(
        &self,
        lasting: bool,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, Status> {
        self.behind.fetch_add(1, Ordering::AcqRel);
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.behind.fetch_sub(1, Ordering::AcqRel);

        let done = self.revive().and_then(|()| {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let Some(database) = &*database else {
                return Err(Status::unavailable("metadata: not accessible"));
            };
            let opened = self.opened.load(Ordering::Acquire);
            if turn.gathered > 0 && turn.opened != opened {
                // A reader has met an error and the database was opened anew, without them.
                turn.settle(Err(Status::internal("metadata: not on disk")));
            }
            turn.opened = opened;
            self.contained(|| self.commit(database, &mut turn, lasting, work))
        });
        if let Err(error) = &done
            && self.failed.load(Ordering::Acquire)
        {
            turn.settle(Err(error.clone()));
        }
        self.settled.notify_all();
        let (value, outcome) = done?;
        if let Some(outcome) = outcome {
            let turn = self
                .settled
                .wait_while(turn, |_| outcome.get().is_none())
                .unwrap_or_else(PoisonError::into_inner);
            drop(turn);
            if let Some(Err(error)) = outcome.get() {
                return Err(error.clone());
            }
        }
        Ok(value)
    }

    /// Runs one write, and commits it: to disk, with all that were gathered, unless others come
    /// behind that will do so. Then it answers where their outcome will be.
    fn commit<T>(
        &self,
        database: &Database,
        turn: &mut Turn,
        lasting: bool,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<(T, Option<Arc<Outcome>>), Failure> {
        let mut transaction = database.begin_write()?;
        let done = work(&transaction);
        let last = self.behind.load(Ordering::Acquire) == 0 || turn.gathered + 1 >= TOGETHER;
        let value = match done {
            Ok(value) => value,
            Err(failure) => {
                transaction.abort()?;
                if matches!(failure, Failure::Refused(_)) && last && turn.gathered > 0 {
                    database.begin_write()?.commit()?;
                    turn.settle(Ok(()));
                }
                return Err(failure);
            }
        };
        // Those that were gathered count on the last of them, whether it needs the disk itself or not.
        if last && (lasting || turn.gathered > 0) {
            transaction.commit()?;
            turn.settle(Ok(()));
            return Ok((value, None));
        }
        transaction.set_durability(Durability::None)?;
        transaction.commit()?;
        if !lasting {
            return Ok((value, None));
        }
        turn.gathered += 1;
        Ok((value, Some(turn.outcome.clone())))
    }

    /// Runs `work` with its failures made answers. What the disk has garbled since the start may
    /// make redb panic: that costs the request, not the daemon.
    fn contained<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Status> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(done) => done.map_err(|failure| self.answer(failure)),
            Err(_) => {
                self.failed.store(true, Ordering::Release);
                log::error!("metadata in {}: damaged", self.path.display());
                Err(Status::data_loss(format!(
                    "metadata: {} is damaged",
                    self.path.display()
                )))
            }
        }
    }

    /// Opens the database anew if an error of the disk has closed it: what was committed before is
    /// safe there.
    fn revive(&self) -> Result<(), Status> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        // The old one first: it holds the lock.
        *database = None;
        let opened = open::open(&self.path, &TABLES).map_err(|trouble| {
            let text = format!("metadata: {}", trouble.tell(&self.path));
            match trouble {
                Trouble::Full(_) => Status::resource_exhausted(text),
                Trouble::Damaged(_) => Status::data_loss(text),
                Trouble::InUse | Trouble::Other(_) => Status::internal(text),
            }
        })?;
        *database = Some(opened);
        self.opened.fetch_add(1, Ordering::AcqRel);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    fn answer(&self, failure: Failure) -> Status {
        let error = match failure {
            Failure::Refused(status) => return status,
            Failure::Storage(error) => error,
        };
        log::error!("metadata in {}: {error}", self.path.display());
        self.failed.store(true, Ordering::Release);
        let text = format!("metadata in {}: {error}", self.path.display());
        match error {
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Status::resource_exhausted(text)
            }
            redb::Error::Corrupted(_) => Status::data_loss(text),
            _ => Status::internal(text),
        }
    }
}

impl From<redb::SetDurabilityError> for Failure {
    fn from(error: redb::SetDurabilityError) -> Self {
        Status::internal(format!("metadata: {error}")).into()
    }
}
