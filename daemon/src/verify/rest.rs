//! What is left: rows that make no sense, namespaces, leases, labels, containers.

use std::collections::{BTreeMap, BTreeSet};

use core_api::namespaces::Namespace;
use prost::Message;

use super::Parts;
use super::images::Needs;
use super::records::{Records, SnapshotKey};
use super::report::{Grade, Repair, Report, some};
use crate::content::digest::Digest;
use crate::gc::graph::{Thing, held_by};
use crate::store::audit::{Edit, Table};

/// Rows that cannot be read. As long as one is there the collector takes nothing away.
pub(super) fn check_rows(parts: &Parts<'_>, records: &Records, report: &mut Report<'_>) {
    for (table, key) in &records.unreadable {
        let subject = format!("record {:?} of a {}", key.replace('\0', "/"), table.name());
        let text = "cannot be read";
        match table {
            Table::Containers => report.problem(subject, text, "remove it and make it again"),
            Table::Snapshots => {
                let remedy = "its folder is kept; restore the database from a backup, or remove \
                              what stands on it";
                report.problem(subject, text, remedy);
            }
            _ => {
                let edit = Edit::remove(*table, key.as_str());
                let repair = Repair::new("removes it", || {
                    let done = parts.store.edit(vec![edit]);
                    done.map_err(|refusal| refusal.message().to_owned())?;
                    Ok("removed".to_owned())
                });
                let remedy = match table {
                    Table::Images => "pull it again",
                    _ => "",
                };
                report.mend(Grade::Problem, subject, text, repair, remedy);
            }
        }
    }
}

/// Everything that is held against what is there after all repairs.
pub(super) fn check(parts: &Parts<'_>, records: &Records, needs: &Needs, report: &mut Report<'_>) {
    namespaces(parts, records, report);
    resources(parts, records, report);
    labels(records, needs, report);
    containers(parts, records, report);
}

fn namespaces(parts: &Parts<'_>, records: &Records, report: &mut Report<'_>) {
    let used: BTreeSet<&String> = records
        .content
        .keys()
        .map(|key| &key.0)
        .chain(records.images.iter().map(|image| &image.0))
        .chain(records.leases.keys().map(|key| &key.0))
        .chain(records.snapshots.keys().map(|key| &key.0))
        .chain(records.containers.iter().map(|container| &container.0))
        .collect();
    for name in used {
        if records.namespaces.contains(name) {
            continue;
        }
        let repair = Repair::new("makes it", || {
            let namespace = Namespace {
                name: name.clone(),
                ..Namespace::default()
            };
            let row = Edit::put(Table::Namespaces, name.as_str(), namespace.encode_to_vec());
            let done = parts.store.edit(vec![row]);
            done.map_err(|refusal| refusal.message().to_owned())?;
            Ok("made, without labels".to_owned())
        });
        let text = "has things in it and no record";
        let subject = format!("namespace {name}");
        report.mend(Grade::Problem, subject, text, repair, String::new());
    }
}

fn resources(parts: &Parts<'_>, records: &Records, report: &mut Report<'_>) {
    let mut nothing: BTreeMap<(&String, &String), Vec<String>> = BTreeMap::new();
    for (key, ns, lease, held) in &records.resources {
        if !records.leases.contains_key(&(ns.clone(), lease.clone())) {
            let text = format!("holds {} {}, but is not there", held.r#type, held.id);
            let row = Edit::remove(Table::Resources, key.as_str());
            let repair = Repair::new("removes the record", || {
                let done = parts.store.edit(vec![row]);
                done.map_err(|refusal| refusal.message().to_owned())?;
                Ok("the record is removed".to_owned())
            });
            let subject = format!("lease {lease} ({ns})");
            report.mend(Grade::Problem, subject, text, repair, String::new());
            continue;
        }
        let is_here = match held.r#type.as_str() {
            "content" => is_known(records, ns, &held.id),
            // An upload that was committed or aborted is nothing to look for.
            "ingests" => true,
            kind => kind.strip_prefix("snapshots/").is_none_or(|snapshotter| {
                let key: SnapshotKey = (ns.clone(), snapshotter.to_owned(), held.id.clone());
                records.snapshots.contains_key(&key)
            }),
        };
        if !is_here {
            let held = format!("{} {}", held.r#type, held.id);
            nothing.entry((ns, lease)).or_default().push(held);
        }
    }
    for ((ns, lease), held) in nothing {
        let text = format!("holds what is not there: {}", some(held));
        report.note(format!("lease {lease} ({ns})"), text);
    }
}

fn is_known(records: &Records, ns: &str, digest: &str) -> bool {
    Digest::parse(digest).is_ok_and(|digest| records.content.contains_key(&(ns.to_owned(), digest)))
}

/// Labels that hold what is not there. An index holds manifests of all platforms, here or not.
fn labels(records: &Records, needs: &Needs, report: &mut Report<'_>) {
    let content = records.content.iter();
    let content = content
        .filter(|((_, digest), _)| !needs.is_index(digest))
        .map(|((ns, digest), info)| (format!("blob {digest} ({ns})"), ns, &info.labels));
    let snapshots = records
        .snapshots
        .iter()
        .map(|((ns, snapshotter, key), record)| {
            let subject = format!("snapshot {snapshotter}/{key} ({ns})");
            (subject, ns, &record.labels)
        });
    for (subject, ns, labels) in content.chain(snapshots) {
        let missing: Vec<String> = held_by(labels)
            .filter_map(|thing| match thing {
                Thing::Content(digest) if !is_known(records, ns, &digest) => {
                    Some(format!("blob {digest}"))
                }
                Thing::Snapshot(snapshotter, key) => {
                    let wanted: SnapshotKey = (ns.clone(), snapshotter, key);
                    let is_here = records.snapshots.contains_key(&wanted);
                    (!is_here).then(|| format!("snapshot {}/{}", wanted.1, wanted.2))
                }
                _ => None,
            })
            .collect();
        if !missing.is_empty() {
            let text = format!("its labels hold what is not there: {}", some(missing));
            report.note(subject, text);
        }
    }
}

fn containers(parts: &Parts<'_>, records: &Records, report: &mut Report<'_>) {
    for (ns, container) in &records.containers {
        let is_ours = |name: &str| parts.drivers.iter().any(|d| d.layout.name() == name);
        if container.snapshot_key.is_empty() || !is_ours(&container.snapshotter) {
            continue;
        }
        let key: SnapshotKey = (
            ns.clone(),
            container.snapshotter.clone(),
            container.snapshot_key.clone(),
        );
        if !records.snapshots.contains_key(&key) && !parts.is_shared {
            let text = format!(
                "its snapshot {}/{} is not there: a new task of it cannot be made",
                key.1, key.2
            );
            report.note(format!("container {} ({ns})", container.id), text);
        }
    }
}
