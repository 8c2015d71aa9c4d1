//! Calls to a shim over ttrpc: the task service, v2 or v3, whose messages are the same.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use containerd_shim_protos::ttrpc::{self, Code, Request};
use protobuf::Message;
use task_api::task::{SERVICE_V2, SERVICE_V3};
use tokio::net::UnixStream;

use super::process::Endpoint;
use crate::status;
use crate::ttrpc::client::Client;

/// How long a shim that listens may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The pause before another try, when a shim's queue of connections is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A connection to the task service of one shim.
#[derive(Debug)]
pub struct TaskClient {
    client: Client,
    service: &'static str,
}

impl TaskClient {
    /// Connects to a shim.
    ///
    /// # Errors
    /// Those of connect(2); `TimedOut` when it does not accept within 2 s.
    pub async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let path = socket_path(&endpoint.address);
        let told = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", endpoint.address))
        };
        let stream = tokio::time::timeout(CONNECT_LIMIT, dial(&path))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(told)?;
        let service = if endpoint.version >= 3 {
            SERVICE_V3
        } else {
            SERVICE_V2
        };
        Ok(Self {
            client: Client::new(stream),
            service,
        })
    }

    /// The same connection, speaking the other version of the service.
    pub fn downgraded(self) -> Self {
        Self {
            client: self.client,
            service: SERVICE_V2,
        }
    }

    /// Runs `then` once when the shim has closed the connection: it is gone, or out of its mind.
    pub fn on_close(&self, then: impl FnOnce() + Send + 'static) {
        self.client.on_close(then);
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
        let encode = |error: protobuf::Error| ttrpc::Error::Others(error.to_string());
        let request = Request {
            service: self.service.to_owned(),
            method: method.to_owned(),
            payload: request.write_to_bytes().map_err(encode)?,
            ..Request::default()
        };
        // In a box: what a call holds is not to be part of every future above it.
        let response = Box::pin(self.client.call(request, limit)).await?;
        R::parse_from_bytes(&response.payload).map_err(encode)
    }
}

/// Whether the shim does not have the version of the service that was called.
pub fn is_unimplemented(error: &ttrpc::Error) -> bool {
    matches!(error, ttrpc::Error::RpcStatus(answer)
        if answer.code() == Code::UNIMPLEMENTED || status::is_no_such_call(answer.message()))
}

/// The socket behind an address; an abstract one's path begins with a NUL.
fn socket_path(address: &str) -> PathBuf {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if let Some(name) = path.strip_prefix(['\0', '@']) {
        return format!("\0{name}").into();
    }
    if path.starts_with('/') && address.starts_with("unix://") {
        return path.into();
    }
    // Shims of containerd 1.2 to 1.3 named abstract sockets without any mark.
    format!("\0{path}").into()
}

/// Connects; a shim that does not accept fast enough has a queue, and a full one is waited for.
async fn dial(path: &PathBuf) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address_is_understood() {
        for (address, path) in [
            ("unix:///run/s", "/run/s"),
            ("unix://\0/shim", "\0/shim"),
            ("unix://@/shim", "\0/shim"),
            ("@/shim", "\0/shim"),
            ("/containerd-shim/x.sock", "\0/containerd-shim/x.sock"),
        ] {
            assert_eq!(socket_path(address), PathBuf::from(path), "{address:?}");
        }
    }
}
