//! The tree of a committed snapshot beside the layer that it was made of, or by itself where that is
//! not here.

use std::fs::File;

use prost::Message;

use super::super::blobs::State;
use super::super::images::Layer;
use super::super::progress::Progress;
use super::super::records::SnapshotKey;
use super::super::report::some;
use super::{Check, row};
use crate::diff::media;
use crate::snapshot::driver::Driver;
use crate::store::audit::{Edit, Table};
use crate::store::snapshots::Record;

/// A tree that takes less than one part in so many of what it took when it was committed has lost
/// its data, whatever the filesystem does about blocks.
const SHRUNK: u64 = 4;

impl Check<'_> {
    /// The layer that makes a snapshot, if its blob is whole.
    pub(super) fn layer(&self, key: &SnapshotKey) -> Option<Layer> {
        let mut layers = self.needs.layers(&key.0, &key.2).iter();
        layers
            .find(|layer| matches!(self.states.get(&layer.digest), Some(State::Good(_))))
            .filter(|layer| media::reading(&layer.media_type).is_ok())
            .cloned()
    }

    fn open(&self, layer: &Layer) -> Result<(File, media::Reading), String> {
        let told = |refusal: tonic::Status| refusal.message().to_owned();
        let reading = media::reading(&layer.media_type).map_err(told)?;
        let path = self.parts.blobs.path(&layer.digest);
        let blob = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((blob, reading))
    }

    /// What is different from the layer, if anything is.
    pub(super) fn compare(
        &self,
        driver: &Driver,
        record: &Record,
        parents: &[u64],
        layer: &Layer,
        progress: &Progress,
    ) -> Option<String> {
        let passed = |bytes| progress.add(bytes);
        let compared = self.open(layer).and_then(|(blob, reading)| {
            driver
                .compare(record.number, parents, blob, reading, &passed)
                .map_err(|refusal| refusal.message().to_owned())
        });
        match compared {
            Ok(differences) if differences.is_empty() => None,
            Ok(differences) => Some(format!(
                "{} is not what its layer {} makes: {}",
                driver.tree(record.number).display(),
                layer.digest,
                some(differences)
            )),
            Err(why) => Some(format!(
                "{} cannot be compared with its layer {}: {why}",
                driver.tree(record.number).display(),
                layer.digest
            )),
        }
    }

    /// What is wrong with the tree of a committed snapshot by itself, if anything is.
    pub(super) fn measure(&self, driver: &Driver, record: &Record) -> Option<String> {
        let tree = driver.tree(record.number);
        if !tree.is_dir() {
            return Some(format!("its folder {} is not there", tree.display()));
        }
        let usage = match driver.usage(record.number) {
            Ok(usage) => usage,
            Err(refusal) => return Some(refusal.message().to_owned()),
        };
        if usage.inodes != record.inodes {
            let (has, had) = (usage.inodes, record.inodes);
            return Some(format!(
                "{} has {has} files and folders, and had {had} when it was committed",
                tree.display()
            ));
        }
        (usage.size < record.size / SHRUNK).then(|| {
            format!(
                "{} takes {} bytes, and took {} when it was committed",
                tree.display(),
                usage.size,
                record.size
            )
        })
    }

    pub(super) fn rebuild(
        &self,
        driver: &Driver,
        key: &SnapshotKey,
        parents: &[u64],
        layer: &Layer,
    ) -> Result<(), String> {
        let record = &self.records.snapshots[key];
        let (blob, reading) = self.open(layer)?;
        let usage = driver
            .rebuild(record.number, parents, blob, reading, self.parts.reserve)
            .map_err(|refusal| refusal.message().to_owned())?;
        let record = Record {
            size: usage.size,
            inodes: usage.inodes,
            ..record.clone()
        };
        let put = Edit::put(Table::Snapshots, row(key), record.encode_to_vec());
        self.edit(vec![put])
    }
}
