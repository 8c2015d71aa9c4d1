//! The gRPC services, one file each: they read requests, ask the store, the tasks or the
//! exchange, and write answers. Rules are there, not here.

mod containers;
mod events;
mod introspection;
mod leases;
mod namespaces;
mod tasks;

use std::sync::Arc;

use core_api::{
    containers::containers_server::ContainersServer, events_service::events_server::EventsServer,
    health::health_server::HealthServer, introspection::introspection_server::IntrospectionServer,
    leases::leases_server::LeasesServer, namespaces::namespaces_server::NamespacesServer,
    tasks::tasks_server::TasksServer, version::version_server::VersionServer,
};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Status};

use crate::exchange::Exchange;
use crate::shim::manager::Manager;
use crate::store::Store;
use crate::{ids, status};

/// What the services work on; clones share it.
#[derive(Debug, Clone)]
pub struct Services {
    /// Metadata.
    pub store: Store,
    /// Tasks.
    pub manager: Arc<Manager>,
    /// Events.
    pub exchange: Arc<Exchange>,
    /// Identity of this installation.
    pub uuid: Arc<str>,
}

/// A server of all services, with messages of at most `receive` and `send` bytes.
pub fn router(services: &Services, receive: usize, send: usize) -> Router {
    macro_rules! limited {
        ($server:ident) => {
            $server::new(services.clone())
                .max_decoding_message_size(receive)
                .max_encoding_message_size(send)
        };
    }
    Server::builder()
        .add_service(limited!(HealthServer))
        .add_service(limited!(VersionServer))
        .add_service(limited!(IntrospectionServer))
        .add_service(limited!(NamespacesServer))
        .add_service(limited!(ContainersServer))
        .add_service(limited!(LeasesServer))
        .add_service(limited!(TasksServer))
        .add_service(limited!(EventsServer))
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

/// A part of a request without which it makes no sense.
fn required<T>(part: Option<T>, name: &str) -> Result<T, Status> {
    part.ok_or_else(|| status::invalid(format_args!("{name} must be set")))
}
