//! What a filter may ask of an event: `namespace`, `topic`, and the strings and labels of what
//! happened (`event.container_id`, `event.name`, `event.labels.KEY`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use core_api::Any;
use core_api::events::{
    ContainerCreate, ContainerDelete, ContainerUpdate, ContentDelete, NamespaceDelete,
    NamespaceUpdate, SnapshotCommit, SnapshotPrepare, SnapshotRemove,
};
use core_api::events_service::Envelope;
use core_api::images::{ImageDelete, ImageUpdate};
use prost::Message;
use protobuf::Message as _;
use task_api::events::TaskExit;

use crate::filter::{Fields, in_map};

impl Fields for Envelope {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let found = match (path[0].as_str(), &path[1..]) {
            ("namespace", _) => Some(self.namespace.as_str().into()),
            ("topic", _) => Some(self.topic.as_str().into()),
            ("event", [name, rest @ ..]) => event_field(self.event.as_ref()?, name, rest),
            _ => None,
        };
        found.filter(|value| !value.is_empty())
    }
}

fn event_field<'a>(event: &Any, name: &str, rest: &[String]) -> Option<Cow<'a, str>> {
    let bytes = event.value.as_slice();
    let labelled = |labels: &BTreeMap<String, String>| {
        in_map(labels, rest).map(|value| Cow::Owned(value.into_owned()))
    };
    let kind = event.type_url.rsplit('/').next().unwrap_or_default();
    if let Some(kind) = kind.strip_prefix("containerd.services.images.v1.") {
        return match (kind, name) {
            ("ImageCreate" | "ImageUpdate" | "ImageDelete", "name") => {
                Some(ImageDelete::decode(bytes).ok()?.name.into())
            }
            ("ImageCreate" | "ImageUpdate", "labels") => {
                labelled(&ImageUpdate::decode(bytes).ok()?.labels)
            }
            _ => None,
        };
    }
    match (kind.strip_prefix("containerd.events.")?, name) {
        // Of tasks, every event has the container's id as field 1, and those of single processes
        // have the process's id as field 2; a decoder skips what it does not know.
        (kind, "container_id") if kind.starts_with("Task") => {
            Some(ContainerDelete::decode(bytes).ok()?.id.into())
        }
        (kind, "id" | "exec_id") if kind.starts_with("Task") => {
            Some(TaskExit::parse_from_bytes(bytes).ok()?.id.into())
        }
        ("ContainerCreate" | "ContainerUpdate" | "ContainerDelete", "id") => {
            Some(ContainerDelete::decode(bytes).ok()?.id.into())
        }
        ("ContainerCreate", "image") => Some(ContainerCreate::decode(bytes).ok()?.image.into()),
        ("ContainerUpdate", "image") => Some(ContainerUpdate::decode(bytes).ok()?.image.into()),
        ("ContainerCreate", "runtime") if rest.first()? == "name" => {
            Some(ContainerCreate::decode(bytes).ok()?.runtime?.name.into())
        }
        ("ContainerUpdate", "labels") => labelled(&ContainerUpdate::decode(bytes).ok()?.labels),
        ("ContainerUpdate", "snapshot_key") => {
            Some(ContainerUpdate::decode(bytes).ok()?.snapshot_key.into())
        }
        ("NamespaceCreate" | "NamespaceUpdate" | "NamespaceDelete", "name") => {
            Some(NamespaceDelete::decode(bytes).ok()?.name.into())
        }
        ("NamespaceCreate" | "NamespaceUpdate", "labels") => {
            labelled(&NamespaceUpdate::decode(bytes).ok()?.labels)
        }
        ("ContentCreate" | "ContentDelete", "digest") => {
            Some(ContentDelete::decode(bytes).ok()?.digest.into())
        }
        // Of snapshots, every event has the key as field 1 and the snapshotter as field 5.
        ("SnapshotPrepare" | "SnapshotCommit" | "SnapshotRemove", "key") => {
            Some(SnapshotRemove::decode(bytes).ok()?.key.into())
        }
        ("SnapshotPrepare" | "SnapshotCommit" | "SnapshotRemove", "snapshotter") => {
            Some(SnapshotRemove::decode(bytes).ok()?.snapshotter.into())
        }
        ("SnapshotPrepare", "parent") => Some(SnapshotPrepare::decode(bytes).ok()?.parent.into()),
        ("SnapshotCommit", "name") => Some(SnapshotCommit::decode(bytes).ok()?.name.into()),
        _ => None,
    }
}
