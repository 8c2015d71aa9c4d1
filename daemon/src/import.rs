//! `wherryd import`: takes the records of containers over from a containerd that has been
//! stopped, so that what runs there can be used by its name here. Images, snapshots, blobs and
//! leases stay where they are.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use core_api::Any;
use core_api::containers::Container;
use core_api::containers::container::Runtime;
use core_api::namespaces::Namespace;
use prost::Message;
use tonic::Code;

use crate::bolt::{Bolt, Bucket};
use crate::config::{Config, Problem};
use crate::store::Store;

/// The version of containerd's layout, which is the name of the outermost bucket.
const LAYOUT: &str = "v1";
/// Notes that the records have been taken over.
const DONE: &str = "imported";

/// What has been taken over.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Containers, as `NAMESPACE/ID`.
    pub containers: Vec<String>,
    /// Containers that had a record here before, which stays.
    pub known: Vec<String>,
    /// Containers whose record cannot be stored, and why.
    pub refused: Vec<String>,
}

fn database(config: &Config) -> PathBuf {
    config.root.join("io.containerd.metadata.v1.bolt/meta.db")
}

/// What `config check` is to say where a containerd has records that were never taken over.
pub fn hint(config: &Config) -> Option<Problem> {
    let database = database(config);
    let waits = database.exists() && !config.own_folder().join(DONE).exists();
    waits.then(|| {
        let text = "containerd has records of containers here, without which its tasks are shown, \
            killed and deleted only";
        let remedy = "stop containerd and wherryd and run `wherryd import`; \
            images are to be pulled anew";
        Problem::warning(&database, 1, text, remedy)
    })
}

/// Takes everything over that is not here yet.
///
/// # Errors
/// A text: there is no such database, or one of the two is in use or damaged.
pub async fn import(config: &Config) -> Result<Imported, String> {
    let database = database(config);
    let told = |error: io::Error| format!("{}: {error}", database.display());
    let bolt = Bolt::open(&database).map_err(told)?;
    let own = config.own_folder();
    crate::serve::folder(&own)?;
    let store = Store::open(&own.join("meta.redb"))?;
    let mut imported = Imported::default();
    let Some(layout) = bolt.root().bucket(LAYOUT).map_err(told)? else {
        return Err(told(io::Error::other("not laid out by containerd 1 or 2")));
    };
    for (namespace, bucket) in layout.buckets().map_err(told)? {
        let labels = labels(bucket).map_err(told)?;
        if !labels.is_empty() {
            let new = Namespace {
                name: namespace.clone(),
                labels,
            };
            // One that is here already keeps its labels.
            let _ = store.create_namespace(new).await;
        }
        let containers = match bucket.bucket("containers").map_err(told)? {
            Some(containers) => containers.buckets().map_err(told)?,
            None => continue,
        };
        for (id, bucket) in containers {
            let name = format!("{namespace}/{id}");
            let container = container(id, bucket).map_err(told)?;
            match store.create_container(namespace.clone(), container).await {
                Ok(_) => imported.containers.push(name),
                Err(refusal) if refusal.code() == Code::AlreadyExists => imported.known.push(name),
                Err(refusal) => imported
                    .refused
                    .push(format!("{name}: {}", refusal.message())),
            }
        }
    }
    std::fs::write(own.join(DONE), "").map_err(told)?;
    Ok(imported)
}

/// A record as containerd lays it: a key for each field, times left out.
fn container(id: String, bucket: Bucket<'_>) -> io::Result<Container> {
    let values: BTreeMap<String, &[u8]> = bucket.values()?.into_iter().collect();
    let text = |key: &str| {
        let value = values.get(key).copied().unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    let mut container = Container {
        id,
        labels: labels(bucket)?,
        image: text("image"),
        snapshotter: text("snapshotter"),
        snapshot_key: text("snapshotKey"),
        sandbox: text("sandboxid"),
        spec: values.get("spec").map(|value| any(value)).transpose()?,
        ..Container::default()
    };
    if let Some(runtime) = bucket.bucket("runtime")? {
        let values: BTreeMap<String, &[u8]> = runtime.values()?.into_iter().collect();
        let name = values.get("name").copied().unwrap_or_default();
        container.runtime = Some(Runtime {
            name: String::from_utf8_lossy(name).into_owned(),
            options: values.get("options").map(|value| any(value)).transpose()?,
        });
    }
    for (name, value) in bucket
        .bucket("extensions")?
        .map_or(Ok(Vec::new()), Bucket::values)?
    {
        container.extensions.insert(name, any(value)?);
    }
    Ok(container)
}

fn labels(bucket: Bucket<'_>) -> io::Result<BTreeMap<String, String>> {
    let values = bucket
        .bucket("labels")?
        .map_or(Ok(Vec::new()), Bucket::values)?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Ok(values
        .into_iter()
        .map(|(key, value)| (key, text(value)))
        .collect())
}

fn any(value: &[u8]) -> io::Result<Any> {
    Any::decode(value).map_err(io::Error::other)
}
