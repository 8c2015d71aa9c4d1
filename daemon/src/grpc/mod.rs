//! The gRPC services, one file each: they read requests, ask the store, the tasks or the
//! exchange, and write answers. Rules are there, not here.

mod containers;
mod content;
mod diff;
mod events;
mod images;
mod introspection;
pub mod layer;
mod leases;
mod namespaces;
mod snapshots;
mod tasks;

pub(crate) use introspection::PARTS;

use std::sync::Arc;

use core_api::{
    containers::containers_server::ContainersServer, content::content_server::ContentServer,
    diff::diff_server::DiffServer, events_service::events_server::EventsServer,
    health::health_server::HealthServer, images::images_server::ImagesServer,
    introspection::introspection_server::IntrospectionServer, leases::leases_server::LeasesServer,
    namespaces::namespaces_server::NamespacesServer, snapshots::snapshots_server::SnapshotsServer,
    tasks::tasks_server::TasksServer, version::version_server::VersionServer,
};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Status};
use tower_layer::{Identity, Stack};

use crate::config::Config;
use crate::content::Content;
use crate::diff::Differ;
use crate::exchange::Exchange;
use crate::gc::Collector;
use crate::shim::manager::Manager;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::unpack::Unpacker;
use crate::{ids, status};

/// What the services work on; clones share it.
#[derive(Debug, Clone)]
pub struct Services {
    /// Metadata.
    pub store: Store,
    /// Blobs.
    pub content: Content,
    /// What removes what nobody needs.
    pub collector: Collector,
    /// Snapshots.
    pub snapshots: Snapshots,
    /// Layers.
    pub differ: Differ,
    /// What unpacks them into snapshots.
    pub unpacker: Unpacker,
    /// Tasks.
    pub manager: Arc<Manager>,
    /// Events.
    pub exchange: Arc<Exchange>,
    /// Identity of this installation.
    pub uuid: Arc<str>,
}

/// How many calls one connection may have open at a time.
const CALLS_PER_CONNECTION: u32 = 4096;

/// A server of the services that `config` does not disable, with messages of at most the sizes it
/// allows; `around` is done around every call.
pub fn router(
    services: &Services,
    around: layer::Around,
    config: &Config,
) -> Router<Stack<layer::Around, Identity>> {
    macro_rules! limited {
        ($server:ident, $id:literal) => {
            (!config.disables("io.containerd.grpc.v1", $id)).then(|| {
                $server::new(services.clone())
                    .max_decoding_message_size(config.max_receive)
                    .max_encoding_message_size(config.max_send)
            })
        };
    }
    Server::builder()
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .layer(around)
        .add_optional_service(limited!(HealthServer, "healthcheck"))
        .add_optional_service(limited!(VersionServer, "version"))
        .add_optional_service(limited!(IntrospectionServer, "introspection"))
        .add_optional_service(limited!(NamespacesServer, "namespaces"))
        .add_optional_service(limited!(ContainersServer, "containers"))
        .add_optional_service(limited!(ContentServer, "content"))
        .add_optional_service(limited!(ImagesServer, "images"))
        .add_optional_service(limited!(DiffServer, "diff"))
        .add_optional_service(limited!(LeasesServer, "leases"))
        .add_optional_service(limited!(SnapshotsServer, "snapshots"))
        .add_optional_service(limited!(TasksServer, "tasks"))
        .add_optional_service(limited!(EventsServer, "events"))
}

/// The namespace that a request is about.
///
/// # Errors
/// `FailedPrecondition` when it names none, `InvalidArgument` when it cannot be one.
fn namespace<T>(request: &Request<T>) -> Result<String, Status> {
    let named = request
        .metadata()
        .get("containerd-namespace")
        .and_then(|value| value.to_str().ok())
        .filter(|name| !name.is_empty());
    let Some(name) = named else {
        return Err(status::precondition("namespace is required"));
    };
    ids::check(name)?;
    Ok(name.to_owned())
}

/// The lease that is to hold what a request writes, if it names one.
fn lease<T>(request: &Request<T>) -> Option<String> {
    let named = request.metadata().get("containerd-lease")?;
    let named = named.to_str().ok().filter(|name| !name.is_empty());
    named.map(str::to_owned)
}

/// What a stream tells of, in portions of `size`: each is gone from memory when it is sent.
fn batches<T>(all: Vec<T>, size: usize) -> impl Iterator<Item = Vec<T>> {
    let mut left = all.into_iter();
    std::iter::from_fn(move || {
        let batch: Vec<T> = left.by_ref().take(size).collect();
        (!batch.is_empty()).then_some(batch)
    })
}

/// A part of a request without which it makes no sense.
fn required<T>(part: Option<T>, name: &str) -> Result<T, Status> {
    part.ok_or_else(|| status::invalid(format_args!("{name} must be set")))
}

#[cfg(test)]
mod tests {
    use core_api::Any;
    use core_api::containers::containers_server::Containers;
    use core_api::containers::{
        Container, CreateContainerRequest, GetContainerRequest, ListContainersRequest,
        UpdateContainerRequest, container,
    };
    use core_api::tasks::tasks_server::Tasks;
    use core_api::{FieldMask, tasks};
    use tonic::Code;

    use super::*;
    use crate::shim::process::Surroundings;

    fn services(dir: &std::path::Path) -> Services {
        let exchange = Arc::new(Exchange::default());
        let config = Config {
            root: dir.join("root"),
            state: dir.join("state"),
            address: dir.join("s"),
            ..Config::default()
        };
        let store = Store::open(&dir.join("meta")).unwrap();
        let content = Content::open(&dir.join("root"), store.clone()).unwrap();
        let surroundings = Surroundings::new(&config).unwrap();
        let snapshots = Snapshots::new(&config, store.clone());
        let differ = Differ::new(Arc::new(content.clone()), &dir.join("root"), 0);
        Services {
            unpacker: Unpacker::new(differ.clone(), snapshots.clone()),
            differ,
            collector: Collector::new(content.clone(), snapshots.clone(), exchange.clone()),
            content,
            snapshots,
            store,
            manager: Arc::new(Manager::new(&config, surroundings, exchange.clone())),
            exchange,
            uuid: "uuid".into(),
        }
    }

    fn in_namespace<T>(message: T, namespace: &str) -> Request<T> {
        let mut request = Request::new(message);
        let value = namespace.parse().unwrap();
        request.metadata_mut().insert("containerd-namespace", value);
        request
    }

    fn record(id: &str) -> Container {
        let odd = Any {
            type_url: "nobody/knows".into(),
            value: vec![0xff, 0, 0x80],
        };
        Container {
            id: id.into(),
            runtime: Some(container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: Some(odd.clone()),
            }),
            spec: Some(odd.clone()),
            extensions: [("e".to_owned(), odd)].into(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..Container::default()
        }
    }

    #[tokio::test]
    async fn a_namespace_is_required() {
        let dir = tempfile::tempdir().unwrap();
        let services = services(dir.path());
        let list = ListContainersRequest::default();
        let refused = Containers::list(&services, Request::new(list.clone())).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("namespace is required"));
        for (name, code) in [
            ("", Code::FailedPrecondition),
            ("a..b", Code::InvalidArgument),
        ] {
            let refused = Containers::list(&services, in_namespace(list.clone(), name)).await;
            assert_eq!(refused.unwrap_err().code(), code);
        }
        Containers::list(&services, in_namespace(list, "unheard-of"))
            .await
            .unwrap();
        let unknown = in_namespace(tasks::KillRequest::default(), "ns");
        assert_eq!(
            Tasks::kill(&services, unknown).await.unwrap_err().code(),
            Code::NotFound
        );
        let create = in_namespace(tasks::CreateTaskRequest::default(), "ns");
        let refused = Tasks::create(&services, create).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "as containerd's");
    }

    #[tokio::test]
    async fn records_come_back_byte_for_byte_and_masks_are_kept_to() {
        let dir = tempfile::tempdir().unwrap();
        let services = services(dir.path());
        let create = |container| {
            let container = Some(container);
            Containers::create(
                &services,
                in_namespace(CreateContainerRequest { container }, "ns"),
            )
        };
        create(record("c")).await.unwrap();
        let taken = create(record("c")).await.unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists);
        for broken in [
            Container {
                spec: None,
                ..record("d")
            },
            Container {
                runtime: None,
                ..record("d")
            },
            Container {
                snapshot_key: "k".into(),
                ..record("d")
            },
            Container {
                labels: [("k".to_owned(), "v".repeat(4096))].into(),
                ..record("d")
            },
        ] {
            let refused = create(broken).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
        let get = async |namespace: &str| {
            let get = GetContainerRequest { id: "c".into() };
            let answer = Containers::get(&services, in_namespace(get, namespace)).await;
            answer.map(|answer| answer.into_inner().container.unwrap())
        };
        assert_eq!(get("other").await.unwrap_err().code(), Code::NotFound);
        let stored = get("ns").await.unwrap();
        let wanted = Container {
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            ..record("c")
        };
        assert_eq!(stored, wanted);

        let update = |container, paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let update = UpdateContainerRequest {
                container: Some(container),
                update_mask: Some(FieldMask { paths }),
            };
            Containers::update(&services, in_namespace(update, "ns"))
        };
        let changed = Container {
            image: "new".into(),
            labels: [("a.b/c".to_owned(), "1".to_owned())].into(),
            ..record("c")
        };
        update(changed.clone(), &["labels.a.b/c", "labels.k"])
            .await
            .unwrap();
        let stored = get("ns").await.unwrap();
        assert_eq!(
            (stored.labels, stored.image.as_str()),
            (changed.labels.clone(), "")
        );
        let refused = update(changed.clone(), &["runtime"]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        update(changed, &[]).await.unwrap();
        assert_eq!(get("ns").await.unwrap().image, "new");
    }
}
