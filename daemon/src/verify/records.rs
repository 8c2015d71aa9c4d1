//! Everything that the database says, read once and decoded.

use std::collections::{BTreeMap, BTreeSet};

use core_api::containers::Container;
use core_api::content::Info;
use core_api::images::Image;
use core_api::leases::{Lease, Resource};
use core_api::namespaces::Namespace;
use prost::Message;

use crate::content::digest::Digest;
use crate::store::Store;
use crate::store::audit::Table;
use crate::store::snapshots::Record;

/// A snapshot: namespace, snapshotter and key.
pub(super) type SnapshotKey = (String, String, String);

/// The records.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) namespaces: BTreeSet<String>,
    /// What each namespace knows of each blob.
    pub(super) content: BTreeMap<(String, Digest), Info>,
    knowing: BTreeMap<Digest, Vec<String>>,
    /// The size of each blob that the daemon has put on disk.
    pub(super) blobs: BTreeMap<Digest, u64>,
    pub(super) images: Vec<(String, Image)>,
    pub(super) leases: BTreeMap<(String, String), Lease>,
    /// Key, namespace, lease and what it holds.
    pub(super) resources: Vec<(String, String, String, Resource)>,
    pub(super) snapshots: BTreeMap<SnapshotKey, Record>,
    pub(super) children: BTreeSet<String>,
    pub(super) numbers: BTreeMap<String, u64>,
    pub(super) containers: Vec<(String, Container)>,
    /// What makes no sense: where it is and its key.
    pub(super) unreadable: Vec<(Table, String)>,
}

/// The parts of a key; the last has the rest.
fn parts<const N: usize>(key: &str) -> Option<[String; N]> {
    let parts: Vec<String> = key.splitn(N, '\0').map(str::to_owned).collect();
    parts.try_into().ok()
}

impl Records {
    /// Reads everything.
    ///
    /// # Errors
    /// That the database cannot be read.
    pub(super) fn read(store: &Store) -> Result<Self, String> {
        let mut records = Self::default();
        for table in [
            Table::Namespaces,
            Table::Containers,
            Table::Leases,
            Table::Resources,
            Table::Content,
            Table::Blobs,
            Table::Images,
            Table::Snapshots,
            Table::Children,
            Table::Numbers,
        ] {
            let rows = store
                .rows(table)
                .map_err(|refusal| refusal.message().to_owned())?;
            for (key, value) in rows {
                if records.add(table, &key, &value).is_none() {
                    records.unreadable.push((table, key));
                }
            }
        }
        Ok(records)
    }

    /// Takes a row in; nothing where it makes no sense.
    fn add(&mut self, table: Table, key: &str, value: &[u8]) -> Option<()> {
        match table {
            Table::Namespaces => {
                Namespace::decode(value).ok()?;
                self.namespaces.insert(key.to_owned());
            }
            Table::Containers => {
                let [ns, _] = parts(key)?;
                self.containers.push((ns, Container::decode(value).ok()?));
            }
            Table::Leases => {
                let [ns, id] = parts(key)?;
                self.leases.insert((ns, id), Lease::decode(value).ok()?);
            }
            Table::Resources => {
                let [ns, lease, _] = parts(key)?;
                let held = Resource::decode(value).ok()?;
                self.resources.push((key.to_owned(), ns, lease, held));
            }
            Table::Content => {
                let [ns, digest] = parts(key)?;
                let digest = Digest::parse(&digest).ok()?;
                let info = Info::decode(value).ok()?;
                self.knowing.entry(digest).or_default().push(ns.clone());
                self.content.insert((ns, digest), info);
            }
            Table::Blobs => {
                let size = u64::from_le_bytes(value.try_into().ok()?);
                self.blobs.insert(Digest::parse(key).ok()?, size);
            }
            Table::Images => {
                let [ns, _] = parts(key)?;
                self.images.push((ns, Image::decode(value).ok()?));
            }
            Table::Snapshots => {
                let [ns, snapshotter, name] = parts(key)?;
                self.snapshots
                    .insert((ns, snapshotter, name), Record::decode(value).ok()?);
            }
            Table::Children => {
                self.children.insert(key.to_owned());
            }
            Table::Numbers => {
                let last = u64::from_be_bytes(value.try_into().ok()?);
                self.numbers.insert(key.to_owned(), last);
            }
        }
        Some(())
    }

    /// The namespaces that know a blob.
    pub(super) fn knowing(&self, digest: &Digest) -> &[String] {
        self.knowing.get(digest).map_or(&[], Vec::as_slice)
    }
}
