//! What is stored of a snapshot, and how clients and filters see it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use core_api::Timestamp;
use core_api::snapshots::{Info, Kind};
use prost::Message;

use crate::filter::{Fields, in_map};

/// What is stored of a snapshot.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// The number of its folder.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The key of the one it stands on; empty for none.
    #[prost(string, tag = "2")]
    pub parent: String,
    /// View, active or committed.
    #[prost(enumeration = "Kind", tag = "3")]
    pub kind: i32,
    /// When it was made, or committed.
    #[prost(message, optional, tag = "4")]
    pub created: Option<Timestamp>,
    /// When it or its labels changed last.
    #[prost(message, optional, tag = "5")]
    pub updated: Option<Timestamp>,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "6")]
    pub labels: BTreeMap<String, String>,
    /// Bytes on disk of a committed one, without its parents.
    #[prost(uint64, tag = "7")]
    pub size: u64,
    /// Inodes of a committed one, without its parents.
    #[prost(uint64, tag = "8")]
    pub inodes: u64,
    /// Of an active one that was left empty because its layer was there already: the key of the
    /// committed snapshot that has it. Empty for any other. Such a one cannot be committed.
    #[prost(string, tag = "9")]
    pub hollow: String,
    /// The layer that a committed one was unpacked from, as far as this daemon has done it; of a
    /// hollow one, the layer that it lacks.
    #[prost(message, optional, tag = "10")]
    pub unpacked: Option<Unpacked>,
}

/// A layer that was unpacked.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Unpacked {
    /// The digest of its blob.
    #[prost(string, tag = "1")]
    pub blob: String,
    /// The digest of the archive in it.
    #[prost(string, tag = "2")]
    pub digest: String,
    /// The size of the archive, in bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
}

/// Where a snapshot belongs: keys are told apart by namespace and snapshotter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The namespace.
    pub namespace: String,
    /// The snapshotter.
    pub snapshotter: String,
    /// The lease that is to hold what is made.
    pub lease: Option<String>,
}

/// A snapshot with the numbers of its parents, nearest first.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The snapshot.
    pub record: Record,
    /// The numbers of its parents' folders, nearest first.
    pub parents: Vec<u64>,
}

/// What is to become of an active snapshot.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its key until now.
    pub key: String,
    /// Its key from now on.
    pub name: String,
    /// Its labels from now on.
    pub labels: BTreeMap<String, String>,
    /// The number that it had when it was measured.
    pub number: u64,
    /// Bytes on disk.
    pub size: u64,
    /// Inodes.
    pub inodes: u64,
    /// The layer that it was unpacked from, if that is known.
    pub unpacked: Option<Unpacked>,
}

/// A snapshot under its key, as filters see it and clients are told of it.
pub(super) struct Named<'a>(pub &'a str, pub &'a Record);

impl Fields for Named<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match (path[0].as_str(), &path[1..]) {
            ("name", []) => Some(self.0.into()),
            // Always there, as with containerd, though it may be empty.
            ("parent", []) => return Some(self.1.parent.as_str().into()),
            ("kind", []) => Some(kind_name(self.1.kind()).into()),
            ("labels", rest) => return in_map(&self.1.labels, rest),
            _ => None,
        }
        .filter(|value: &Cow<'_, str>| !value.is_empty())
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unknown => "unknown",
        Kind::View => "view",
        Kind::Active => "active",
        Kind::Committed => "committed",
    }
}

impl Record {
    /// What clients are told of a snapshot.
    pub fn info(&self, key: &str) -> Info {
        Info {
            name: key.to_owned(),
            parent: self.parent.clone(),
            kind: self.kind,
            created_at: self.created,
            updated_at: self.updated,
            labels: self.labels.clone(),
        }
    }
}

impl Scope {
    pub(super) fn prefix(&self) -> String {
        format!("{}\0{}", self.namespace, self.snapshotter)
    }

    pub(super) fn key(&self, key: &str) -> String {
        format!("{}\0{}\0{key}", self.namespace, self.snapshotter)
    }

    pub(super) fn child(&self, parent: &str, key: &str) -> String {
        format!("{}\0{}\0{parent}\0{key}", self.namespace, self.snapshotter)
    }

    /// What a lease calls a snapshot.
    pub(super) fn resource(&self) -> String {
        format!("snapshots/{}", self.snapshotter)
    }
}
