//! Snapshots: folder trees that stand on one another, by `overlayfs` (a layer each) or `native`
//! (a whole copy each).
//!
//! The store has the records, a [`driver`] the folders. A folder is made under a temporary name
//! and gets its number in the transaction that stores its record; it is deleted some time after
//! its record. So what has a record has its folder, whenever the daemon is killed, and folders
//! without a record are removed by the sweep at start and by Cleanup.

pub mod copy;
pub mod driver;
pub mod flights;
pub mod in_use;
pub mod probe;
mod rebuild;
mod sweep;
pub mod usage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use core_api::snapshots::{Info, Kind};
use core_api::types::Mount;
use tonic::{Code, Status};

use crate::config::Config;
use crate::filter::Filters;
use crate::status;
use crate::store::Store;
use crate::store::snapshots::{Chain, Commit, Extraction, Record, Scope, Unpacked};

use driver::{Driver, Layout};
use flights::Flights;
use sweep::Sweeper;
use usage::Usage;

/// All snapshotters; clones share them.
#[derive(Debug, Clone)]
pub struct Snapshots {
    store: Store,
    drivers: Arc<[Driver]>,
    sweeper: Sweeper,
    flights: Flights,
}

/// What a new snapshot is to be.
#[derive(Debug, Clone)]
pub struct New {
    /// Its key.
    pub key: String,
    /// The committed snapshot it stands on; empty for none.
    pub parent: String,
    /// Active or view.
    pub kind: Kind,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Snapshots {
    /// The snapshotters where `config` has them. Nothing is touched until one is used.
    pub fn new(config: &Config, store: Store) -> Self {
        let drivers = [Layout::Overlay, Layout::Native].map(|layout| Driver::new(layout, config));
        Self {
            store,
            drivers: drivers.into(),
            sweeper: Sweeper::default(),
            flights: Flights::default(),
        }
    }

    /// The snapshotters with what keeps them from working, if anything does.
    pub fn drivers(&self) -> impl Iterator<Item = (&Driver, Option<&str>)> {
        self.drivers
            .iter()
            .map(|driver| (driver, driver.ready().err()))
    }

    /// The snapshotter that clients are to use who name none, where it is not the usual one:
    /// `native` when `overlayfs` cannot work here.
    pub fn fallback(&self) -> Option<&'static str> {
        let overlay = self.drivers.iter().find(|d| d.layout == Layout::Overlay)?;
        overlay.ready().is_err().then_some(Layout::Native.name())
    }

    /// Frees the folder of a snapshot whose record is gone, some time from now on.
    pub fn free(&self, snapshotter: &str, number: u64) {
        drop(self.flights.take(snapshotter, number));
        if let Ok(driver) = self.driver(snapshotter) {
            self.sweeper.free(driver, number);
        }
    }

    /// Returns when what was to be freed before is gone.
    pub async fn freed(&self) {
        self.sweeper.idle().await;
    }

    fn driver(&self, name: &str) -> Result<&Driver, Status> {
        let Some(driver) = self.drivers.iter().find(|d| d.layout.name() == name) else {
            return Err(status::invalid(format_args!(
                "snapshotter not loaded: {name}"
            )));
        };
        driver.ready().map_err(|reason| {
            status::invalid(format_args!("snapshotter not loaded: {name}: {reason}"))
        })?;
        Ok(driver)
    }

    /// Makes an active snapshot or a view and answers its mounts.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for the parent, `InvalidArgument` where it is not committed or
    /// the snapshotter is not there; `ResourceExhausted` when the disk is full.
    pub async fn create(&self, scope: Scope, new: New) -> Result<Vec<Mount>, Status> {
        let driver = self.driver(&scope.snapshotter)?.clone();
        let parents = self.store.snapshot_parents(&scope, &new.key, &new.parent)?;
        let New {
            key,
            parent,
            kind,
            labels,
        } = new;
        let staged = {
            let driver = driver.clone();
            blocking(move || driver.stage(kind, &parents)).await?
        };
        let record = Record {
            parent,
            kind: kind.into(),
            labels,
            ..Record::default()
        };
        let (free, placing) = (driver.clone(), driver.clone());
        let placed = Arc::new(OnceLock::new());
        let noted = placed.clone();
        let created = self.store.create_snapshot(
            scope.clone(),
            key.clone(),
            record,
            move |number| free.is_free(number),
            move |number| {
                placing.place(staged, number)?;
                let _ = noted.set(number);
                Ok(())
            },
        );
        let chain = created.await.inspect_err(|_| {
            if let Some(number) = placed.get() {
                self.take_back(&driver, &scope, &key, *number);
            }
        })?;
        Ok(driver.mounts(&chain))
    }

    /// Layers that are under way.
    pub fn flights(&self) -> &Flights {
        &self.flights
    }

    /// The extraction of `namespace` that is written to by writing to `mounts`, if it is one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn extraction(
        &self,
        namespace: &str,
        mounts: &[Mount],
    ) -> Result<Option<Extraction>, Status> {
        let [mount] = mounts else { return Ok(None) };
        let tree = match mount.r#type.as_str() {
            "overlay" => {
                let mut options = mount.options.iter();
                options.find_map(|option| option.strip_prefix("upperdir="))
            }
            _ => Some(mount.source.as_str()),
        };
        let Some(tree) = tree else { return Ok(None) };
        let found = self.drivers.iter().find_map(|driver| {
            let number = driver.number_of(Path::new(tree))?;
            Some((driver.layout.name(), number))
        });
        let Some((snapshotter, number)) = found else {
            return Ok(None);
        };
        let scope = Scope {
            namespace: namespace.to_owned(),
            snapshotter: snapshotter.to_owned(),
            lease: None,
        };
        self.store.extraction(scope, number)
    }

    /// If what `extraction` is for is there already, unpacked from `blob`, marks it as hollow and
    /// answers what was unpacked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn share(
        &self,
        extraction: &Extraction,
        blob: &str,
    ) -> Result<Option<Unpacked>, Status> {
        if self.store.unpacked(extraction, blob)?.is_none() {
            return Ok(None);
        }
        self.store
            .leave_hollow(extraction.clone(), blob.to_owned())
            .await
    }

    /// Takes note that a hollow extraction has the layer in `blob` now.
    ///
    /// # Errors
    /// `NotFound` when the extraction is gone; those of the database.
    pub async fn filled(&self, extraction: Extraction, blob: String) -> Result<(), Status> {
        self.store.filled(extraction, blob).await
    }

    /// Frees a folder whose record could not be stored, on a full disk for instance, unless it was
    /// all the same.
    fn take_back(&self, driver: &Driver, scope: &Scope, key: &str, number: u64) {
        let is_free = match self.store.snapshot_record(scope, key) {
            Ok(record) => record.number != number,
            // What cannot be read now is left to the next start.
            Err(refusal) => refusal.code() == Code::NotFound,
        };
        if is_free {
            self.sweeper.free(driver, number);
        }
    }

    /// How a snapshot that is not committed is mounted.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for a committed one.
    pub fn mounts(&self, scope: &Scope, key: &str) -> Result<Vec<Mount>, Status> {
        let driver = self.driver(&scope.snapshotter)?;
        let chain: Chain = self.store.snapshot(scope, key)?;
        if chain.record.kind() == Kind::Committed {
            let text = format!("snapshot {key} is committed and has no mounts of its own");
            return Err(status::precondition(text));
        }
        Ok(driver.mounts(&chain))
    }

    /// Makes an active snapshot a committed one called `name`, after everything in it is on disk.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists`; `FailedPrecondition` unless it is active.
    pub async fn commit(
        &self,
        scope: Scope,
        key: String,
        name: String,
        labels: BTreeMap<String, String>,
    ) -> Result<(), Status> {
        let driver = self.driver(&scope.snapshotter)?.clone();
        let number = match self.store.check_commit(&scope, &key, &name) {
            Ok(record) => record.number,
            Err(refusal) => {
                if refusal.code() == Code::AlreadyExists {
                    self.hold_instead(scope, name).await;
                }
                return Err(refusal);
            }
        };
        // Whoever waits for the layer does so until this is committed, or is not.
        let landed = self.flights.take(&scope.snapshotter, number);
        let unpacked = landed.as_ref().filter(|landed| landed.chain == name);
        let usage = blocking(move || {
            driver.sync(number)?;
            driver.usage(number)
        })
        .await?;
        let commit = Commit {
            key,
            name,
            labels,
            number,
            size: usage.size,
            inodes: usage.inodes,
            unpacked: unpacked.map(|landed| landed.unpacked.clone()),
        };
        self.store.commit_snapshot(scope, commit).await
    }

    /// Lets a lease hold the snapshot that is there in place of the one that was to be committed
    /// under it. The client needs that one from here on.
    async fn hold_instead(&self, scope: Scope, name: String) {
        if let Err(refusal) = self.store.hold_snapshot(scope, name).await {
            log::debug!("{}", refusal.message());
        }
    }

    /// Forgets a snapshot; its space is freed behind.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while another stands on it.
    pub async fn remove(&self, scope: Scope, key: String) -> Result<(), Status> {
        let driver = self.driver(&scope.snapshotter)?.clone();
        let number = self.store.remove_snapshot(scope, key).await?;
        drop(self.flights.take(driver.layout.name(), number));
        self.sweeper.free(&driver, number);
        Ok(())
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn stat(&self, scope: &Scope, key: &str) -> Result<Info, Status> {
        self.driver(&scope.snapshotter)?;
        Ok(self.store.snapshot_record(scope, key)?.info(key))
    }

    /// Changes labels.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for anything else than labels.
    pub async fn update(
        &self,
        scope: Scope,
        wanted: Info,
        paths: Vec<String>,
    ) -> Result<Info, Status> {
        self.driver(&scope.snapshotter)?;
        self.store.update_snapshot(scope, wanted, paths).await
    }

    /// The snapshots that pass `filters`.
    ///
    /// # Errors
    /// `InvalidArgument` where the snapshotter is not there.
    pub fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>, Status> {
        self.driver(&scope.snapshotter)?;
        self.store.snapshots(scope, filters)
    }

    /// What a snapshot takes on disk, without its parents.
    ///
    /// # Errors
    /// `NotFound`; those of the file system.
    pub async fn usage(&self, scope: &Scope, key: &str) -> Result<Usage, Status> {
        let driver = self.driver(&scope.snapshotter)?.clone();
        let record = self.store.snapshot_record(scope, key)?;
        if record.kind() == Kind::Active {
            return blocking(move || driver.usage(record.number)).await;
        }
        Ok(Usage {
            size: record.size,
            inodes: record.inodes,
        })
    }

    /// Frees the space of everything that has no record any more, and returns when it is free.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn cleanup(&self, snapshotter: &str) -> Result<(), Status> {
        let driver = self.driver(snapshotter)?;
        self.sweeper.sweep(&self.store, driver).await
    }

    /// Removes what a killed daemon left. To be called once, at start; waits for nothing.
    pub fn recover(&self) {
        for driver in self.drivers.iter().filter(|driver| driver.exists()) {
            let (sweeper, store, driver) =
                (self.sweeper.clone(), self.store.clone(), driver.clone());
            tokio::spawn(async move {
                if let Err(refusal) = sweeper.sweep(&store, &driver).await {
                    log::warn!(
                        "left-over folders of {}: {}",
                        driver.layout.name(),
                        refusal.message()
                    );
                }
            });
        }
    }
}

/// Runs what works on files where it keeps nobody waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// A failure of the file system as the answer to a client.
fn told(path: &Path, error: &std::io::Error) -> Status {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        StorageFull | QuotaExceeded => Status::resource_exhausted(text),
        _ => status::unknown(text),
    }
}
