//! What the collector reads and removes of the metadata, in one transaction.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use core_api::Timestamp;
use core_api::containers::Container;
use core_api::content::Info;
use core_api::images::Image;
use core_api::leases::{Lease, Resource};
use prost::Message;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use tonic::Status;

use super::content::{BLOBS, CONTENT};
use super::images::IMAGES;
use super::snapshots::{Record, SNAPSHOTS, Scope, forget_snapshot};
use super::{CONTAINERS, Failure, LEASE_RESOURCES, LEASES, Store, below};
use crate::content::digest::Digest;
use crate::gc::graph::{Graph, Node, Thing};

/// When a lease or an image ends by itself (RFC 3339).
const EXPIRE: &str = "containerd.io/gc.expire";
/// A lease that holds only what it names itself.
const FLAT: &str = "containerd.io/gc.flat";

/// What a collection took away.
#[derive(Debug, Default, PartialEq)]
pub struct Garbage {
    /// Leases that had expired: namespace and id.
    pub leases: Vec<(String, String)>,
    /// Images that had expired: namespace and name.
    pub images: Vec<(String, String)>,
    /// Blobs that a namespace does not see any more: namespace and digest.
    pub content: Vec<(String, String)>,
    /// Blobs that no namespace sees, whose files are to go.
    pub blobs: Vec<Digest>,
    /// Snapshots that were taken away, children before their parents: where each belonged, its
    /// key and the number of its folder.
    pub snapshots: Vec<(Scope, String, u64)>,
    /// Uploads that a lease holds.
    pub held_ingests: HashSet<(String, String)>,
}

impl Garbage {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.images.is_empty()
            && self.content.is_empty()
            && self.blobs.is_empty()
            && self.snapshots.is_empty()
    }
}

type Records = TableDefinition<'static, &'static str, &'static [u8]>;

/// Every record of a table that can be read, with its namespace and the rest of its key. One that
/// cannot be read is an error: what it needs would go.
fn each<M: Message + Default>(
    transaction: &WriteTransaction,
    table: Records,
    mut seen: impl FnMut(String, String, M),
) -> Result<(), Failure> {
    for entry in transaction.open_table(table)?.iter()? {
        let (key, value) = entry?;
        let (namespace, id) = key.value().split_once('\0').unwrap_or_default();
        seen(
            namespace.to_owned(),
            id.to_owned(),
            super::decode(value.value())?,
        );
    }
    Ok(())
}

fn expired(label: Option<&String>, now: SystemTime) -> bool {
    let Some(time) = label else { return false };
    match time
        .parse::<Timestamp>()
        .ok()
        .and_then(|time| SystemTime::try_from(time).ok())
    {
        Some(time) => time <= now,
        None => {
            log::warn!("label {EXPIRE}: {time:?} is no time, and does not expire");
            false
        }
    }
}

/// The thing that a lease's resource names.
fn thing(resource: &Resource) -> Option<Thing> {
    let id = resource.id.clone();
    match resource.r#type.as_str() {
        "content" => Some(Thing::Content(id)),
        "ingests" => Some(Thing::Ingest(id)),
        kind => Some(Thing::Snapshot(
            kind.strip_prefix("snapshots/")?.to_owned(),
            id,
        )),
    }
}

/// What a walk over the tables found.
#[derive(Default)]
struct Found {
    graph: Graph,
    garbage: Garbage,
    content: Vec<(String, String)>,
    snapshots: Vec<(Node, String)>,
}

fn walk(transaction: &WriteTransaction, now: SystemTime) -> Result<Found, Failure> {
    let mut found = Found::default();
    let Found {
        graph,
        garbage,
        content,
        snapshots,
    } = &mut found;
    each(transaction, IMAGES, |ns, name, image: Image| {
        let node: Node = (ns.clone(), Thing::Image(name.clone()));
        graph.labels(&node, &image.labels);
        if let Some(target) = image.target {
            graph.edge(node.clone(), (ns.clone(), Thing::Content(target.digest)));
        }
        if expired(image.labels.get(EXPIRE), now) {
            garbage.images.push((ns, name));
        } else {
            graph.root(node);
        }
    })?;
    each(transaction, CONTAINERS, |ns, id, container: Container| {
        // A container is none of the things that may go; it stands in the graph as a root of its
        // own kind of name, which no image can have.
        let node: Node = (ns.clone(), Thing::Image(format!("\0{id}")));
        if !container.snapshot_key.is_empty() {
            let snapshot = Thing::Snapshot(container.snapshotter, container.snapshot_key);
            graph.edge(node.clone(), (ns, snapshot));
        }
        graph.labels(&node, &container.labels);
        graph.root(node);
    })?;
    let mut live = HashSet::new();
    let mut flat = HashSet::new();
    each(transaction, LEASES, |ns, id, lease: Lease| {
        if expired(lease.labels.get(EXPIRE), now) {
            garbage.leases.push((ns, id));
            return;
        }
        if lease.labels.contains_key(FLAT) {
            flat.insert((ns.clone(), id.clone()));
        }
        live.insert((ns, id));
    })?;
    each(transaction, LEASE_RESOURCES, |ns, key, held: Resource| {
        let lease = key.split('\0').next().unwrap_or_default();
        let lease = (ns.clone(), lease.to_owned());
        let Some(thing) = thing(&held).filter(|_| live.contains(&lease)) else {
            return;
        };
        if let Thing::Ingest(reference) = thing {
            garbage.held_ingests.insert((ns, reference));
        } else if flat.contains(&lease) {
            graph.flat_root((ns, thing));
        } else {
            graph.root((ns, thing));
        }
    })?;
    each(transaction, CONTENT, |ns, digest, info: Info| {
        let node: Node = (ns.clone(), Thing::Content(digest.clone()));
        graph.labels(&node, &info.labels);
        content.push((ns, digest));
    })?;
    each(transaction, SNAPSHOTS, |ns, key, record: Record| {
        let (snapshotter, key) = key.split_once('\0').unwrap_or_default();
        let thing = |key: &str| Thing::Snapshot(snapshotter.to_owned(), key.to_owned());
        let node: Node = (ns.clone(), thing(key));
        if !record.parent.is_empty() {
            graph.edge(node.clone(), (ns.clone(), thing(&record.parent)));
        }
        if !record.hollow.is_empty() {
            graph.edge(node.clone(), (ns, thing(&record.hollow)));
        }
        graph.labels(&node, &record.labels);
        snapshots.push((node, record.parent));
    })?;
    Ok(found)
}

fn sweep(transaction: &WriteTransaction, now: SystemTime) -> Result<Garbage, Failure> {
    let Found {
        graph,
        mut garbage,
        content,
        snapshots,
    } = walk(transaction, now)?;
    let needed = graph.needed();
    let is_needed = |ns: &str, thing: Thing| needed.contains(&(ns.to_owned(), thing));

    let mut images = transaction.open_table(IMAGES)?;
    garbage
        .images
        .retain(|(ns, name)| !is_needed(ns, Thing::Image(name.clone())));
    for (ns, name) in &garbage.images {
        images.remove(super::key(ns, name).as_str())?;
    }
    let mut leases = transaction.open_table(LEASES)?;
    let mut resources = transaction.open_table(LEASE_RESOURCES)?;
    for (ns, id) in &garbage.leases {
        let key = super::key(ns, id);
        leases.remove(key.as_str())?;
        let (from, to) = below(&key);
        resources.retain_in(from.as_str()..to.as_str(), |_, _| false)?;
    }
    let mut table = transaction.open_table(CONTENT)?;
    let mut seen = HashSet::new();
    for (ns, digest) in content {
        if is_needed(&ns, Thing::Content(digest.clone())) {
            seen.insert(digest);
        } else {
            table.remove(super::key(&ns, &digest).as_str())?;
            garbage.content.push((ns, digest));
        }
    }
    garbage.snapshots = sweep_snapshots(transaction, snapshots, &needed)?;
    let mut blobs = transaction.open_table(BLOBS)?;
    if blobs.len()? != seen.len() as u64 {
        let mut gone = Vec::new();
        for entry in blobs.iter()? {
            let digest = entry?.0.value().to_owned();
            if !seen.contains(&digest) {
                gone.push(digest);
            }
        }
        for digest in gone {
            blobs.remove(digest.as_str())?;
            garbage.blobs.extend(Digest::parse(&digest).ok());
        }
    }
    Ok(garbage)
}

/// Forgets the snapshots that nothing needs. Those that stand on another go before it; what is
/// needed keeps all it stands on, so nothing is in their way.
fn sweep_snapshots(
    transaction: &WriteTransaction,
    found: Vec<(Node, String)>,
    needed: &HashSet<Node>,
) -> Result<Vec<(Scope, String, u64)>, Failure> {
    let unneeded: HashMap<Node, String> = found
        .into_iter()
        .filter(|(node, _)| !needed.contains(node))
        .collect();
    let mut children: HashMap<Node, usize> = HashMap::new();
    let parent_of = |(namespace, thing): &Node, parent: &str| match thing {
        Thing::Snapshot(snapshotter, _) => {
            let parent = Thing::Snapshot(snapshotter.clone(), parent.to_owned());
            (namespace.clone(), parent)
        }
        other => (namespace.clone(), other.clone()),
    };
    for (node, parent) in &unneeded {
        *children.entry(parent_of(node, parent)).or_default() += 1;
    }
    let mut ready: Vec<&Node> = unneeded
        .keys()
        .filter(|node| !children.contains_key(*node))
        .collect();
    let mut gone = Vec::new();
    while let Some(node) = ready.pop() {
        let (namespace, Thing::Snapshot(snapshotter, key)) = node else {
            continue;
        };
        let scope = Scope {
            namespace: namespace.clone(),
            snapshotter: snapshotter.clone(),
            lease: None,
        };
        let number = forget_snapshot(transaction, &scope, key)?;
        gone.push((scope, key.clone(), number));
        let parent = parent_of(node, &unneeded[node]);
        let left = children.entry(parent.clone()).or_default();
        *left = left.saturating_sub(1);
        if *left == 0 {
            ready.extend(unneeded.get_key_value(&parent).map(|(node, _)| node));
        }
    }
    Ok(gone)
}

impl Store {
    /// Takes out of the metadata what nothing needs at the moment `now`, in one transaction.
    ///
    /// # Errors
    /// Those of the database, and `DataLoss` for a record that cannot be read: then all stays.
    pub async fn sweep(&self, now: SystemTime) -> Result<Garbage, Status> {
        self.write(move |transaction| sweep(transaction, now)).await
    }
}
