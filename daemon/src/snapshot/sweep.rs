//! Frees what no record names any more: behind a Remove, at Cleanup, and at start.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::Status;

use super::driver::{self, Driver, STAGED};
use super::{blocking, told};
use crate::store::Store;

/// Deletes folders, one at a time: whoever prepares a snapshot meanwhile needs the disk too.
#[derive(Debug, Clone)]
pub(super) struct Sweeper {
    turn: Arc<Semaphore>,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Sweeper {
    /// Deletes the folder with this number some time from now on. Its record is gone.
    pub(super) fn free(&self, driver: &Driver, number: u64) {
        let (turn, folder) = (self.turn.clone(), driver.folder(number));
        tokio::spawn(async move {
            let _turn = turn.acquire_owned().await;
            // What is left because it is mounted still, goes with the next sweep.
            let done =
                blocking(move || driver::remove(&folder).map_err(|error| told(&folder, &error)));
            if let Err(refusal) = done.await {
                log::warn!("{}", refusal.message());
            }
        });
    }

    /// Returns when the folders that wait for it now are deleted. The turns are given in order.
    pub(super) async fn idle(&self) {
        drop(self.turn.acquire().await);
    }

    /// Deletes every folder that no record names, after those that wait for it already.
    pub(super) async fn sweep(&self, store: &Store, driver: &Driver) -> Result<(), Status> {
        let _turn = self.turn.acquire().await;
        let listing = driver.clone();
        // Nobody can be between naming a folder and storing its record while this is read.
        let orphans = store
            .with_snapshot_numbers(driver.layout.name().to_owned(), move |known| {
                orphans(&listing, known)
            })
            .await?;
        blocking(move || {
            let mut result = Ok(());
            for folder in orphans {
                if let Err(error) = driver::remove(&folder) {
                    result = Err(told(&folder, &error));
                }
            }
            result
        })
        .await
    }
}

impl Driver {
    /// The folders whose number is none of `known`, and those that a killed daemon was making.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn orphans(&self, known: &HashSet<u64>) -> Result<Vec<PathBuf>, Status> {
        let folder = self.snapshots();
        let entries = std::fs::read_dir(&folder).map_err(|error| told(&folder, &error))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| told(&folder, &error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let is_orphan = if name.starts_with(STAGED) {
                !self.is_own(name)
            } else {
                name.parse().is_ok_and(|number| !known.contains(&number))
            };
            if is_orphan {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

fn orphans(driver: &Driver, known: &HashSet<u64>) -> Result<Vec<PathBuf>, Status> {
    let found = driver.orphans(known)?;
    // A number without a record may then be containerd's, and nothing here says otherwise.
    if driver.is_shared() && !found.is_empty() {
        log::warn!(
            "{}: {} folders without a record are left alone, because containerd used this \
             folder too (metadata.db)",
            driver.snapshots().display(),
            found.len()
        );
        return Ok(Vec::new());
    }
    Ok(found)
}
