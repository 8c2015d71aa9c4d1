//! What the daemon is: its version, its parts, its health.

use core_api::health::health_check_response::ServingStatus;
use core_api::health::health_server::Health;
use core_api::health::{HealthCheckRequest, HealthCheckResponse};
use core_api::introspection::introspection_server::Introspection;
use core_api::introspection::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use core_api::types::Platform;
use core_api::version::VersionResponse;
use core_api::version::version_server::Version;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use super::Services;
use crate::filter::{Fields, Filters, in_map};
use crate::{status, version};

/// The parts of the daemon under the names that containerd has for them.
pub(crate) const PARTS: &[(&str, &str)] = &[
    ("io.containerd.differ.v1", "walking"),
    ("io.containerd.event.v1", "exchange"),
    ("io.containerd.metadata.v1", "redb"),
    ("io.containerd.runtime.v2", "task"),
    ("io.containerd.content.v1", "content"),
    ("io.containerd.gc.v1", "scheduler"),
    ("io.containerd.grpc.v1", "containers"),
    ("io.containerd.grpc.v1", "content"),
    ("io.containerd.grpc.v1", "diff"),
    ("io.containerd.grpc.v1", "events"),
    ("io.containerd.grpc.v1", "healthcheck"),
    ("io.containerd.grpc.v1", "images"),
    ("io.containerd.grpc.v1", "introspection"),
    ("io.containerd.grpc.v1", "leases"),
    ("io.containerd.grpc.v1", "namespaces"),
    ("io.containerd.grpc.v1", "snapshots"),
    ("io.containerd.grpc.v1", "tasks"),
    ("io.containerd.grpc.v1", "version"),
];

impl Fields for Plugin {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match (path[0].as_str(), &path[1..]) {
            ("type", []) => Some(self.r#type.as_str().into()),
            ("id", []) => Some(self.id.as_str().into()),
            ("exports", rest) => in_map(&self.exports, rest),
            ("capabilities", [wanted]) => self
                .capabilities
                .contains(wanted)
                .then(|| wanted.clone().into()),
            _ => None,
        }
    }
}

fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let variant = if architecture == "arm64" { "v8" } else { "" };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
    }
}

impl Services {
    /// The snapshotters, with what keeps them from working.
    fn snapshotters(&self) -> impl Iterator<Item = Plugin> {
        self.snapshots.drivers().map(|(driver, fault)| Plugin {
            r#type: "io.containerd.snapshotter.v1".to_owned(),
            id: driver.layout.name().to_owned(),
            platforms: vec![platform()],
            exports: [("root".to_owned(), driver.root().display().to_string())].into(),
            init_err: fault.map(|reason| core_api::rpc::Status {
                code: Code::FailedPrecondition.into(),
                message: reason.to_owned(),
                ..core_api::rpc::Status::default()
            }),
            ..Plugin::default()
        })
    }

    /// The parts of the daemon as clients see them.
    fn plugins(&self) -> impl Iterator<Item = Plugin> {
        let parts = PARTS.iter().map(|(kind, id)| Plugin {
            r#type: (*kind).to_owned(),
            id: (*id).to_owned(),
            platforms: if ["task", "walking"].contains(id) {
                vec![platform()]
            } else {
                Vec::new()
            },
            exports: if *kind == "io.containerd.content.v1" {
                let root = self.content.blobs.content().display().to_string();
                [("root".to_owned(), root)].into()
            } else {
                BTreeMap::new()
            },
            ..Plugin::default()
        });
        parts.chain(self.snapshotters())
    }
}

#[tonic::async_trait]
impl Introspection for Services {
    async fn plugins(
        &self,
        request: Request<PluginsRequest>,
    ) -> Result<Response<PluginsResponse>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        let plugins = self
            .plugins()
            .filter(|plugin| filters.hold(plugin))
            .collect();
        Ok(Response::new(PluginsResponse { plugins }))
    }

    async fn plugin_info(
        &self,
        request: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        let PluginInfoRequest { r#type, id, .. } = request.into_inner();
        let mut plugins = self.plugins();
        let plugin = plugins.find(|plugin| plugin.r#type == r#type && plugin.id == id);
        if plugin.is_none() {
            return Err(status::not_found(format_args!("plugin {}.{id}", r#type)));
        }
        // No part has more to say of itself.
        Ok(Response::new(PluginInfoResponse {
            plugin,
            extra: None,
        }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        let pidns = std::fs::metadata("/proc/self/ns/pid")
            .map(|meta| std::os::unix::fs::MetadataExt::ino(&meta))
            .unwrap_or_default();
        Ok(Response::new(ServerResponse {
            uuid: self.uuid.to_string(),
            pid: u64::from(std::process::id()),
            pidns,
        }))
    }
}

#[tonic::async_trait]
impl Version for Services {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: version::API.to_owned(),
            revision: version::REVISION.to_owned(),
        }))
    }
}

/// A health that never changes while there is somebody to tell it. There is one for the daemon
/// as a whole (no name), none of single services.
fn health(service: &str) -> ServingStatus {
    if service.is_empty() {
        ServingStatus::Serving
    } else {
        ServingStatus::ServiceUnknown
    }
}

#[tonic::async_trait]
impl Health for Services {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match health(&request.get_ref().service) {
            ServingStatus::Serving => Ok(Response::new(HealthCheckResponse {
                status: ServingStatus::Serving.into(),
            })),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        use tokio_stream::StreamExt;
        let status = health(&request.get_ref().service).into();
        let first = tokio_stream::once(Ok(HealthCheckResponse { status }));
        Ok(Response::new(Box::pin(
            first.chain(tokio_stream::pending()),
        )))
    }
}
