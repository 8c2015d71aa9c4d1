//! Everything that a namespace keeps on disk, and what of it would go if some images went: by the
//! labels and references that containerd's collector goes by.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use core_api::Timestamp;
use core_api::containers::{Container, ListContainersRequest};
use core_api::content::{self as content_api, ListContentRequest, ListStatusesRequest};
use core_api::images::Image;
use core_api::introspection::PluginsRequest;
use core_api::leases::{Lease, ListRequest, ListResourcesRequest, Resource};
use core_api::namespaces::ListNamespacesRequest;
use core_api::snapshots::{self as snapshots_api, ListSnapshotsRequest};

use super::lease::EXPIRES;
use super::record;
use crate::connection::Connection;
use crate::error::{Context, Result};

const CONTENT_LABEL: &str = "containerd.io/gc.ref.content.";
const SNAPSHOT_LABEL: &str = "containerd.io/gc.ref.snapshot.";
const IMAGE_LABEL: &str = "containerd.io/gc.ref.image";
const ROOT_LABEL: &str = "containerd.io/gc.root";
/// What leases call a blob.
const CONTENT: &str = "content";
/// What leases call a snapshot, with the snapshotter behind it.
const SNAPSHOTS: &str = "snapshots/";
/// What a lease that holds no more than its things is labelled with.
const FLAT_LABEL: &str = "containerd.io/gc.flat";

/// A thing on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    /// A blob, by its digest.
    Blob(String),
    /// A snapshot, by snapshotter and key.
    Snapshot(String, String),
}

/// What a namespace holds.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Its images.
    pub(crate) images: Vec<Image>,
    /// Its containers.
    pub(crate) containers: Vec<Container>,
    /// Its leases and what they keep.
    pub(crate) leases: Vec<(Lease, Vec<Resource>)>,
    /// Its blobs, by their digests.
    pub(crate) blobs: BTreeMap<String, content_api::Info>,
    /// Its snapshots.
    pub(crate) snapshots: BTreeMap<(String, String), snapshots_api::Info>,
    /// What is being uploaded.
    pub(crate) uploads: Vec<content_api::Status>,
}

/// All containers.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn containers(connection: &Connection) -> Result<Vec<Container>> {
    let listed = connection
        .containers()
        .list(ListContainersRequest::default())
        .await;
    Ok(listed
        .about("cannot list the containers")?
        .into_inner()
        .containers)
}

/// The names of all namespaces.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn namespaces(connection: &Connection) -> Result<Vec<String>> {
    let listed = connection
        .namespaces()
        .list(ListNamespacesRequest::default())
        .await;
    let listed = listed
        .about("cannot list the namespaces")?
        .into_inner()
        .namespaces;
    Ok(listed.into_iter().map(|namespace| namespace.name).collect())
}

/// The snapshotters that work here.
async fn snapshotters(connection: &Connection) -> Result<Vec<String>> {
    let filters = vec!["type==io.containerd.snapshotter.v1".to_owned()];
    let listed = connection
        .introspection()
        .plugins(PluginsRequest { filters })
        .await;
    let plugins = listed
        .about("cannot list the snapshotters")?
        .into_inner()
        .plugins;
    let works = plugins
        .into_iter()
        .filter(|plugin| plugin.init_err.is_none());
    Ok(works.map(|plugin| plugin.id).collect())
}

impl Inventory {
    /// Of the connection's namespace.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(crate) async fn take(connection: &Connection) -> Result<Self> {
        let mut taken = Self {
            images: record::list(connection, &[]).await?,
            containers: containers(connection).await?,
            ..Self::default()
        };
        let leases = connection.leases().list(ListRequest::default()).await;
        for lease in leases.about("cannot list the leases")?.into_inner().leases {
            let id = lease.id.clone();
            let listed = connection
                .leases()
                .list_resources(ListResourcesRequest { id })
                .await;
            // It may have ended meanwhile.
            let resources = listed.map(|listed| listed.into_inner().resources);
            taken.leases.push((lease, resources.unwrap_or_default()));
        }
        let listed = connection
            .content()
            .list(ListContentRequest::default())
            .await;
        let mut listed = listed.about("cannot list the blobs")?.into_inner();
        while let Some(some) = listed.message().await.about("cannot list the blobs")? {
            let infos = some.info.into_iter();
            taken
                .blobs
                .extend(infos.map(|info| (info.digest.clone(), info)));
        }
        for snapshotter in snapshotters(connection).await? {
            let what = format!("cannot list the snapshots of {snapshotter}");
            let request = ListSnapshotsRequest {
                snapshotter: snapshotter.clone(),
                ..ListSnapshotsRequest::default()
            };
            let listed = connection.snapshots().list(request).await;
            let mut listed = listed.about(&what)?.into_inner();
            while let Some(some) = listed.message().await.about(&what)? {
                let infos = some.info.into_iter();
                let infos = infos.map(|info| ((snapshotter.clone(), info.name.clone()), info));
                taken.snapshots.extend(infos);
            }
        }
        let uploads = connection
            .content()
            .list_statuses(ListStatusesRequest::default())
            .await;
        taken.uploads = uploads
            .about("cannot list the uploads")?
            .into_inner()
            .statuses;
        Ok(taken)
    }

    /// What nothing needs once the images of which `goes` says so are gone.
    pub(crate) fn unneeded(&self, goes: impl Fn(&Image) -> bool, now: SystemTime) -> Vec<Thing> {
        let mut mark = Mark {
            inventory: self,
            needed: BTreeSet::new(),
            waiting: Vec::new(),
        };
        for image in self.images.iter().filter(|image| !goes(image)) {
            if let Some(target) = &image.target {
                mark.add(Thing::Blob(target.digest.clone()));
            }
            mark.follow(&image.labels);
        }
        for container in &self.containers {
            let (snapshotter, key) = (&container.snapshotter, &container.snapshot_key);
            mark.add(Thing::Snapshot(snapshotter.clone(), key.clone()));
            mark.follow(&container.labels);
        }
        for (digest, info) in &self.blobs {
            if info.labels.contains_key(ROOT_LABEL) {
                mark.add(Thing::Blob(digest.clone()));
            }
        }
        for ((snapshotter, key), info) in &self.snapshots {
            if info.labels.contains_key(ROOT_LABEL) {
                mark.add(Thing::Snapshot(snapshotter.clone(), key.clone()));
            }
        }
        let mut flat = BTreeSet::new();
        for (lease, resources) in &self.leases {
            if is_expired(lease, now) {
                continue;
            }
            for resource in resources {
                let id = resource.id.clone();
                let thing = if resource.r#type == CONTENT {
                    Thing::Blob(id)
                } else if let Some(snapshotter) = resource.r#type.strip_prefix(SNAPSHOTS) {
                    Thing::Snapshot(snapshotter.to_owned(), id)
                } else {
                    continue;
                };
                if lease.labels.contains_key(FLAT_LABEL) {
                    flat.insert(thing);
                } else {
                    mark.add(thing);
                }
            }
        }
        mark.run();
        let needed = mark.needed;
        let blobs = self.blobs.keys().map(|digest| Thing::Blob(digest.clone()));
        let snapshots = self.snapshots.keys();
        let snapshots =
            snapshots.map(|(snapshotter, key)| Thing::Snapshot(snapshotter.clone(), key.clone()));
        blobs
            .chain(snapshots)
            .filter(|thing| !needed.contains(thing) && !flat.contains(thing))
            .collect()
    }
}

/// Whether a lease's time is over.
pub(crate) fn is_expired(lease: &Lease, now: SystemTime) -> bool {
    let expires = lease
        .labels
        .get(EXPIRES)
        .and_then(|text| text.parse::<Timestamp>().ok());
    let expires = expires.and_then(|expires| SystemTime::try_from(expires).ok());
    expires.is_some_and(|expires| expires <= now)
}

/// What is found to be needed.
struct Mark<'a> {
    inventory: &'a Inventory,
    needed: BTreeSet<Thing>,
    waiting: Vec<Thing>,
}

impl Mark<'_> {
    fn add(&mut self, thing: Thing) {
        if self.needed.insert(thing.clone()) {
            self.waiting.push(thing);
        }
    }

    /// Adds what labels refer to.
    fn follow(&mut self, labels: &BTreeMap<String, String>) {
        for (label, value) in labels {
            if label.starts_with(CONTENT_LABEL) || label == CONTENT_LABEL.trim_end_matches('.') {
                self.add(Thing::Blob(value.clone()));
            } else if let Some(rest) = label.strip_prefix(SNAPSHOT_LABEL) {
                // A snapshotter's name may be followed by anything.
                let snapshotter = rest.split(['.', '/']).next().unwrap_or(rest);
                self.add(Thing::Snapshot(snapshotter.to_owned(), value.clone()));
            } else if label.starts_with(IMAGE_LABEL) {
                let images = self.inventory.images.iter();
                let named = images.filter(|image| image.name == *value);
                let targets: Vec<_> = named.filter_map(|image| image.target.clone()).collect();
                for target in targets {
                    self.add(Thing::Blob(target.digest));
                }
            }
        }
    }

    fn run(&mut self) {
        let inventory = self.inventory;
        while let Some(thing) = self.waiting.pop() {
            match thing {
                Thing::Blob(digest) => {
                    if let Some(info) = inventory.blobs.get(&digest) {
                        self.follow(&info.labels);
                    }
                }
                Thing::Snapshot(snapshotter, key) => {
                    if let Some(info) = inventory.snapshots.get(&(snapshotter.clone(), key)) {
                        self.follow(&info.labels);
                        if !info.parent.is_empty() {
                            self.add(Thing::Snapshot(snapshotter, info.parent.clone()));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_api::types::Descriptor;

    fn image(name: &str, digest: &str) -> Image {
        let digest = digest.to_owned();
        let target = Some(Descriptor {
            digest,
            ..Descriptor::default()
        });
        Image {
            name: name.to_owned(),
            target,
            ..Image::default()
        }
    }

    fn inventory() -> Inventory {
        let mut made = Inventory::default();
        let mut blob = |digest: &str, labels: &[(&str, &str)]| {
            let labels = labels
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()));
            let info = content_api::Info {
                labels: labels.collect(),
                ..content_api::Info::default()
            };
            made.blobs.insert(digest.to_owned(), info);
        };
        blob(
            "m",
            &[
                ("containerd.io/gc.ref.content.config", "c"),
                ("containerd.io/gc.ref.content.l.0", "l"),
            ],
        );
        blob("c", &[("containerd.io/gc.ref.snapshot.sn", "top")]);
        blob("l", &[]);
        blob("other", &[]);
        blob("rooted", &[(ROOT_LABEL, "")]);
        for (key, parent) in [("top", "low"), ("low", ""), ("mine", "low"), ("lost", "")] {
            let info = snapshots_api::Info {
                parent: parent.to_owned(),
                ..snapshots_api::Info::default()
            };
            made.snapshots
                .insert(("sn".to_owned(), key.to_owned()), info);
        }
        made.images = vec![image("a", "m")];
        made
    }

    fn names(things: &[Thing]) -> Vec<&str> {
        let name = |thing: &'_ Thing| match thing {
            Thing::Blob(name) | Thing::Snapshot(_, name) => name.as_str().to_owned(),
        };
        things.iter().map(name).map(|name| &*name.leak()).collect()
    }

    #[test]
    fn what_nothing_refers_to_is_unneeded() {
        let mut made = inventory();
        let now = SystemTime::now();
        let kept = made.unneeded(|_| false, now);
        assert_eq!(names(&kept), ["other", "lost", "mine"]);
        let gone = made.unneeded(|_| true, now);
        assert_eq!(
            names(&gone),
            ["c", "l", "m", "other", "lost", "low", "mine", "top"]
        );
        made.containers = vec![Container {
            snapshotter: "sn".to_owned(),
            snapshot_key: "mine".to_owned(),
            ..Container::default()
        }];
        let gone = made.unneeded(|_| true, now);
        assert_eq!(names(&gone), ["c", "l", "m", "other", "lost", "top"]);
    }

    #[test]
    fn leases_keep_until_they_expire() {
        let mut made = inventory();
        let now = SystemTime::now();
        let lease = |label: &str, value: &str| Lease {
            labels: [(label.to_owned(), value.to_owned())].into(),
            ..Lease::default()
        };
        let resource = |kind: &str, id: &str| Resource {
            r#type: kind.to_owned(),
            id: id.to_owned(),
        };
        let resources = vec![
            resource("content", "m"),
            resource("snapshots/sn", "lost"),
            resource("ingests", "x"),
        ];
        made.leases = vec![(lease("x", ""), resources.clone())];
        assert_eq!(names(&made.unneeded(|_| true, now)), ["other", "mine"]);
        made.leases = vec![(lease(FLAT_LABEL, ""), resources.clone())];
        let gone = made.unneeded(|_| true, now);
        assert_eq!(names(&gone), ["c", "l", "other", "low", "mine", "top"]);
        made.leases = vec![(lease(EXPIRES, "2001-01-01T00:00:00Z"), resources)];
        assert!(is_expired(&made.leases[0].0, now));
        assert_eq!(made.unneeded(|_| true, now).len(), 8);
        assert!(!is_expired(&lease(EXPIRES, "2999-01-01T00:00:00Z"), now));
        assert!(!is_expired(&lease(EXPIRES, "nonsense"), now));
    }
}
