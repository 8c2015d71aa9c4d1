//! Records of containers: what may be stored, and what an update may change.

use std::borrow::Cow;
use std::time::SystemTime;

use core_api::containers::Container;
use prost::Message;
use redb::ReadableTable;
use tonic::Status;

use super::{CONTAINERS, Failure, Store, decode, key, list, namespaces};
use crate::filter::{Fields, Filters, in_map};
use crate::{ids, status};

impl Fields for Container {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match (path[0].as_str(), &path[1..]) {
            // As with containerd, what follows a field that has no parts is not looked at.
            ("id", _) => Some(self.id.as_str().into()),
            ("image", _) => Some(self.image.as_str().into()),
            ("runtime", [name, ..]) if name == "name" => {
                Some(self.runtime.as_ref()?.name.as_str().into())
            }
            ("labels", rest) => return in_map(&self.labels, rest),
            _ => None,
        }
        .filter(|value: &Cow<'_, str>| !value.is_empty())
    }
}

fn unknown(namespace: &str, id: &str) -> Failure {
    status::not_found(format_args!("container {id:?} in namespace {namespace:?}")).into()
}

fn check(container: &Container) -> Result<(), Status> {
    ids::check(&container.id)?;
    if container.extensions.keys().any(String::is_empty) {
        return Err(status::invalid("extension keys must not be zero-length"));
    }
    ids::check_labels(&container.labels)?;
    if container
        .runtime
        .as_ref()
        .is_none_or(|runtime| runtime.name.is_empty())
    {
        return Err(status::invalid("container.Runtime.Name must be set"));
    }
    if container.spec.is_none() {
        return Err(status::invalid("container.Spec must be set"));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        let text = "container.Snapshotter must be set if container.SnapshotKey is set";
        return Err(status::invalid(text));
    }
    Ok(())
}

/// Applies to `stored` what `paths` names of `wanted`; everything that may change when empty.
fn apply(stored: &mut Container, wanted: &Container, paths: &[String]) -> Result<(), Status> {
    const ALL: [&str; 5] = ["labels", "spec", "extensions", "image", "snapshot_key"];
    let name = |c: &Container| c.runtime.as_ref().map(|runtime| runtime.name.clone());
    if paths.is_empty() {
        if wanted.snapshotter != stored.snapshotter {
            return Err(status::invalid("container.Snapshotter field is immutable"));
        }
        if name(wanted) != name(stored) {
            return Err(status::invalid("container.Runtime.Name field is immutable"));
        }
        return ALL
            .iter()
            .try_for_each(|path| apply_one(stored, wanted, path));
    }
    paths
        .iter()
        .try_for_each(|path| apply_one(stored, wanted, path))
}

fn apply_one(stored: &mut Container, wanted: &Container, path: &str) -> Result<(), Status> {
    match path {
        "labels" => stored.labels.clone_from(&wanted.labels),
        "spec" => stored.spec.clone_from(&wanted.spec),
        "extensions" => stored.extensions.clone_from(&wanted.extensions),
        "image" => stored.image.clone_from(&wanted.image),
        "snapshot_key" | "snapshotkey" => stored.snapshot_key.clone_from(&wanted.snapshot_key),
        _ => {
            if let Some(label) = path.strip_prefix("labels.") {
                let value = wanted.labels.get(label).cloned().unwrap_or_default();
                stored.labels.insert(label.to_owned(), value);
            } else if let Some(extension) = path.strip_prefix("extensions.") {
                match wanted.extensions.get(extension) {
                    Some(value) => stored
                        .extensions
                        .insert(extension.to_owned(), value.clone()),
                    None => stored.extensions.remove(extension),
                };
            } else {
                return Err(status::invalid(format_args!(
                    "cannot update {path:?} field on container {:?}",
                    stored.id
                )));
            }
        }
    }
    Ok(())
}

impl Store {
    /// The record of a container.
    ///
    /// # Errors
    /// `NotFound`, also for what cannot be an id.
    pub fn container(&self, namespace: &str, id: &str) -> Result<Container, Status> {
        self.read(|transaction| {
            let table = transaction.open_table(CONTAINERS)?;
            let found = table.get(key(namespace, id).as_str())?;
            decode(found.ok_or_else(|| unknown(namespace, id))?.value())
        })
    }

    /// The records that pass `filters`, by id.
    ///
    /// # Errors
    /// Those of the database.
    pub fn containers(&self, namespace: &str, filters: &Filters) -> Result<Vec<Container>, Status> {
        let mut found: Vec<Container> =
            self.read(|transaction| list(&transaction.open_table(CONTAINERS)?, namespace))?;
        found.retain(|container| filters.hold(container));
        Ok(found)
    }

    /// Stores a new record with the times of this moment.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for what lacks an id, a runtime or a spec.
    pub async fn create_container(
        &self,
        namespace: String,
        mut new: Container,
    ) -> Result<Container, Status> {
        check(&new)?;
        new.labels = ids::without_empty(new.labels);
        new.created_at = Some(SystemTime::now().into());
        new.updated_at = new.created_at;
        self.write(move |transaction| {
            namespaces::ensure(transaction, &namespace)?;
            let mut table = transaction.open_table(CONTAINERS)?;
            let key = key(&namespace, &new.id);
            if table.get(key.as_str())?.is_some() {
                return Err(status::already_exists(format_args!("container {:?}", new.id)).into());
            }
            table.insert(key.as_str(), new.encode_to_vec().as_slice())?;
            Ok(new)
        })
        .await
    }

    /// Changes the fields that `paths` names; all that may change when it is empty.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a field that cannot change or a record that would not
    /// be valid any more.
    pub async fn update_container(
        &self,
        namespace: String,
        wanted: Container,
        paths: Vec<String>,
    ) -> Result<Container, Status> {
        if wanted.id.is_empty() {
            return Err(status::invalid("must specify a container id"));
        }
        self.write(move |transaction| {
            let mut table = transaction.open_table(CONTAINERS)?;
            let key = key(&namespace, &wanted.id);
            let mut container: Container = {
                let found = table.get(key.as_str())?;
                decode(
                    found
                        .ok_or_else(|| unknown(&namespace, &wanted.id))?
                        .value(),
                )?
            };
            apply(&mut container, &wanted, &paths)?;
            check(&container)?;
            container.labels = ids::without_empty(container.labels);
            container.updated_at = Some(SystemTime::now().into());
            table.insert(key.as_str(), container.encode_to_vec().as_slice())?;
            Ok(container)
        })
        .await
    }

    /// Removes a record.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_container(&self, namespace: String, id: String) -> Result<(), Status> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(CONTAINERS)?;
            match table.remove(key(&namespace, &id).as_str())? {
                Some(_) => Ok(()),
                None => Err(unknown(&namespace, &id)),
            }
        })
        .await
    }
}
