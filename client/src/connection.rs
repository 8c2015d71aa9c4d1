//! The connection to the daemon: containerd's gRPC services over a Unix socket, each call with
//! the namespace. After the daemon was away, the next call connects again.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use core_api::containers::containers_client::ContainersClient;
use core_api::content::content_client::ContentClient;
use core_api::diff::diff_client::DiffClient;
use core_api::events_service::events_client::EventsClient;
use core_api::images::images_client::ImagesClient;
use core_api::introspection::introspection_client::IntrospectionClient;
use core_api::leases::leases_client::LeasesClient;
use core_api::namespaces::namespaces_client::NamespacesClient;
use core_api::snapshots::snapshots_client::SnapshotsClient;
use core_api::tasks::tasks_client::TasksClient;
use core_api::version::version_client::VersionClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tower_service::Service;

use crate::cli::Daemon;
use crate::error::{Error, Result};
use crate::output;

/// Specs and lists may be large; containerd's own clients allow 16 MiB.
const LARGEST_MESSAGE: usize = 16 << 20;
/// How often a daemon that went away is looked for.
const RETRY: Duration = Duration::from_millis(100);

/// How a service is reached.
pub(crate) type Transport = InterceptedService<Channel, InNamespace>;

/// A daemon, and the namespace that calls are about.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    socket: String,
    namespace: String,
    channel: Channel,
    headers: InNamespace,
}

/// Adds to each call the namespace and, where there is one, the lease that keeps what it makes.
#[derive(Debug, Clone)]
pub(crate) struct InNamespace {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for InNamespace {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            headers.insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// Connects to the socket, whatever address it is asked for.
#[derive(Debug, Clone)]
struct Dialer(String);

impl Service<Uri> for Dialer {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { UnixStream::connect(socket).await.map(TokioIo::new) })
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// No daemon listens, or the namespace is no name.
    pub(crate) async fn open(daemon: &Daemon) -> Result<Self> {
        let address = &daemon.address;
        let socket = address.strip_prefix("unix://").unwrap_or(address);
        if socket.contains("://") || socket.is_empty() {
            let text = format!("{address:?} is no path of a socket (see --address)");
            return Err(Error::said(text));
        }
        let headers = InNamespace {
            namespace: namespace_header(&daemon.namespace)?,
            lease: None,
        };
        // The first connection is tried apart: its error says what is wrong with the socket.
        dial(socket).await?;
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector_lazy(Dialer(socket.to_owned()));
        Ok(Self {
            socket: socket.to_owned(),
            namespace: daemon.namespace.clone(),
            channel,
            headers,
        })
    }

    /// The same daemon for calls about another namespace, without a lease.
    ///
    /// # Errors
    /// It is no name of a namespace.
    pub(crate) fn for_namespace(&self, namespace: &str) -> Result<Self> {
        let mut other = self.clone();
        other.headers = InNamespace {
            namespace: namespace_header(namespace)?,
            lease: None,
        };
        other.namespace = namespace.to_owned();
        Ok(other)
    }

    /// The same daemon and namespace, with calls whose results a lease keeps.
    ///
    /// # Errors
    /// The lease's id cannot be sent.
    pub(crate) fn under(&self, lease: &str) -> Result<Self> {
        let header = lease.parse().ok();
        let header = header.ok_or_else(|| Error::said(format!("{lease:?} is no lease")))?;
        let mut leased = self.clone();
        leased.headers.lease = Some(header);
        Ok(leased)
    }

    fn transport(&self) -> Transport {
        InterceptedService::new(self.channel.clone(), self.headers.clone())
    }

    /// Path of the socket.
    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }

    /// The namespace of all calls.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn tasks(&self) -> TasksClient<Transport> {
        TasksClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn containers(&self) -> ContainersClient<Transport> {
        ContainersClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn events(&self) -> EventsClient<Transport> {
        EventsClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn content(&self) -> ContentClient<Transport> {
        ContentClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn images(&self) -> ImagesClient<Transport> {
        ImagesClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn introspection(&self) -> IntrospectionClient<Transport> {
        IntrospectionClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn snapshots(&self) -> SnapshotsClient<Transport> {
        SnapshotsClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn diff(&self) -> DiffClient<Transport> {
        DiffClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn leases(&self) -> LeasesClient<Transport> {
        LeasesClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn namespaces(&self) -> NamespacesClient<Transport> {
        NamespacesClient::new(self.transport()).max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub(crate) fn version(&self) -> VersionClient<Transport> {
        VersionClient::new(self.transport())
    }

    /// Whether a daemon listens now.
    pub(crate) async fn is_there(&self) -> bool {
        dial(&self.socket).await.is_ok()
    }

    /// Waits until a daemon listens again; says so once if there is none.
    pub(crate) async fn restored(&self) {
        let mut told = false;
        while !self.is_there().await {
            if !told {
                let text = format!("the daemon at {} is gone; waiting for it", self.socket);
                output::complain(&text);
                told = true;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Makes a call that may be made twice, again each time the daemon went away during it.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(crate) async fn persist<T, F>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> std::result::Result<T, Status>
    where
        F: Future<Output = std::result::Result<T, Status>>,
    {
        loop {
            match call().await {
                Err(status) if is_lost(&status) => {
                    tokio::time::sleep(RETRY).await;
                    self.restored().await;
                }
                done => return done,
            }
        }
    }
}

fn namespace_header(namespace: &str) -> Result<MetadataValue<Ascii>> {
    let header = namespace.parse().ok().filter(|_| !namespace.is_empty());
    header.ok_or_else(|| Error::said(format!("{namespace:?} is no namespace (see --namespace)")))
}

async fn dial(socket: &str) -> Result<()> {
    let connected = UnixStream::connect(Path::new(socket)).await;
    connected.map(drop).map_err(|cause| Error::Connect {
        socket: socket.to_owned(),
        cause,
    })
}

/// Whether a call failed because the daemon went away, not because it refused: an error that was
/// made on our side has a source, one that came over the wire has none.
pub(crate) fn is_lost(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}
