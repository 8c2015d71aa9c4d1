//! Calls to a shim over ttrpc: the task service, v2 or v3, whose messages are the same.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use containerd_shim_protos::ttrpc::asynchronous::Client;
use containerd_shim_protos::ttrpc::{self, Code, Request};
use protobuf::Message;
use task_api::task::{SERVICE_V2, SERVICE_V3};
use tokio::io::Interest;

use super::process::Endpoint;
use crate::status;

/// How long a shim that listens may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A connection to the task service of one shim.
pub struct TaskClient {
    client: Client,
    service: &'static str,
}

impl std::fmt::Debug for TaskClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskClient({})", self.service)
    }
}

/// Tells when the shim at the other end of a connection is gone.
#[derive(Debug)]
pub struct Hangup(tokio::net::UnixStream);

impl Hangup {
    /// Waits until the connection is closed from the other end.
    pub async fn wait(&self) {
        // Urgent data is asked for, which unix sockets do not have: what ends this is the hangup,
        // which the kernel always reports. What arrives is for the client to read.
        let _ = self.0.ready(Interest::PRIORITY).await;
    }
}

impl TaskClient {
    /// Connects to a shim.
    ///
    /// # Errors
    /// Those of connect(2); `TimedOut` when it does not accept within 2 s.
    pub async fn connect(endpoint: &Endpoint) -> io::Result<(Self, Hangup)> {
        let address = endpoint.address.clone();
        let dial = tokio::task::spawn_blocking(move || dial(&address));
        let stream = dial.await.map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        let hangup = Hangup(tokio::net::UnixStream::from_std(stream.try_clone()?)?);
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let client = Client::new(stream.into());
        let service = if endpoint.version >= 3 {
            SERVICE_V3
        } else {
            SERVICE_V2
        };
        Ok((Self { client, service }, hangup))
    }

    /// The same connection, speaking the other version of the service.
    pub fn downgraded(self) -> Self {
        Self {
            client: self.client,
            service: SERVICE_V2,
        }
    }

    /// Calls `method`. No limit means as long as it takes.
    ///
    /// # Errors
    /// What the shim answers, or why there is no answer.
    pub async fn call<A: Message, R: Message>(
        &self,
        method: &str,
        request: &A,
        limit: Option<Duration>,
    ) -> ttrpc::Result<R> {
        let nanos = limit.map_or(0, |limit| {
            i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX)
        });
        let encode = |error: protobuf::Error| ttrpc::Error::Others(error.to_string());
        let request = Request {
            service: self.service.to_owned(),
            method: method.to_owned(),
            timeout_nano: nanos,
            payload: request.write_to_bytes().map_err(encode)?,
            ..Request::default()
        };
        let response = self.client.request(request).await?;
        R::parse_from_bytes(&response.payload).map_err(encode)
    }
}

/// Whether the shim does not have the version of the service that was called.
pub fn is_unimplemented(error: &ttrpc::Error) -> bool {
    matches!(error, ttrpc::Error::RpcStatus(answer)
        if answer.code() == Code::UNIMPLEMENTED || status::is_no_such_call(answer.message()))
}

fn dial(address: &str) -> io::Result<UnixStream> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if let Some(name) = path.strip_prefix(['\0', '@']) {
        return UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?);
    }
    if path.starts_with('/') && address.starts_with("unix://") {
        return sys::socket::connect_unix_timeout(path.as_ref(), CONNECT_LIMIT)
            .map(UnixStream::from);
    }
    // Shims of containerd 1.2 to 1.3 named abstract sockets without any mark.
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(path)?)
}
