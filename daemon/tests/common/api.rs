//! A client of the daemon's own API for tests: calls by name with messages of `core-api`, each
//! answer as one text that can be compared with another daemon's; and Debian's containerd beside
//! ours, to compare with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be set up ends a test"
)]

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use core_api::content::{ReadContentRequest, ReadContentResponse};
use core_api::prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::common::{Background, background, eventually, run};

/// How long one call may take.
pub const CALL_LIMIT: Duration = Duration::from_secs(20);

/// A connection to a daemon, for the calls of one namespace.
#[derive(Clone)]
pub struct Peer {
    channel: Channel,
    /// What is sent as the namespace; `None` sends no header.
    pub namespace: Option<String>,
    /// How long a call may take, as the daemon is told.
    limit: Option<Duration>,
    /// The lease that is to hold what calls make.
    lease: Option<String>,
}

impl Peer {
    pub async fn connect(address: &Path, namespace: &str) -> Self {
        let channel = Endpoint::try_from(format!("unix://{}", address.display()))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self::over(channel, namespace)
    }

    /// Calls over a connection that is there already.
    pub fn over(channel: Channel, namespace: &str) -> Self {
        Self {
            channel,
            namespace: Some(namespace.to_owned()),
            limit: Some(CALL_LIMIT),
            lease: None,
        }
    }

    /// The same connection for calls that may take for ever.
    pub fn without_limit(&self) -> Self {
        Self {
            limit: None,
            ..self.clone()
        }
    }

    /// The same connection for calls under a lease.
    pub fn under(&self, lease: &str) -> Self {
        Self {
            lease: Some(lease.to_owned()),
            ..self.clone()
        }
    }

    /// The same connection for another namespace.
    pub fn of(&self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self.clone()
        }
    }

    /// The same connection without a namespace.
    pub fn nowhere(&self) -> Self {
        Self {
            namespace: None,
            ..self.clone()
        }
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(namespace) = &self.namespace {
            let value = namespace.parse().unwrap();
            request.metadata_mut().insert("containerd-namespace", value);
        }
        if let Some(lease) = &self.lease {
            let value = lease.parse().unwrap();
            request.metadata_mut().insert("containerd-lease", value);
        }
        if let Some(limit) = self.limit {
            request.set_timeout(limit);
        }
        request
    }

    async fn grpc(&self) -> Grpc<Channel> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        grpc.ready().await.unwrap();
        grpc
    }

    /// Calls `SERVICE/METHOD`, whose service is below `containerd.services`.
    pub async fn call<A, R>(&self, method: &str, message: A) -> Result<R, Status>
    where
        A: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let codec = ProstCodec::<A, R>::default();
        let unary = self
            .grpc()
            .await
            .unary(self.request(message), path(method), codec)
            .await;
        unary.map(Response::into_inner)
    }

    /// As [`Peer::call`] for an answer of many messages. No time limit is sent.
    pub async fn stream<A, R>(
        &self,
        method: &str,
        message: A,
    ) -> Result<tonic::Streaming<R>, Status>
    where
        A: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let codec = ProstCodec::<A, R>::default();
        let mut request = self.request(message);
        request.metadata_mut().remove("grpc-timeout");
        let streaming = self
            .grpc()
            .await
            .server_streaming(request, path(method), codec)
            .await;
        streaming.map(Response::into_inner)
    }
}

impl Peer {
    /// Sends all of `messages` in one stream, then its end, and answers what came back: messages,
    /// and the refusal at the end if there was one. `lease` holds what is written.
    pub async fn converse<A, R>(
        &self,
        method: &str,
        lease: Option<&str>,
        messages: Vec<A>,
    ) -> (Vec<R>, Result<(), Status>)
    where
        A: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let codec = ProstCodec::<A, R>::default();
        let mut request = self.request(tokio_stream::iter(messages));
        if let Some(lease) = lease {
            let value = lease.parse().unwrap();
            request.metadata_mut().insert("containerd-lease", value);
        }
        let answers = self
            .grpc()
            .await
            .streaming(request, path(method), codec)
            .await;
        let mut answers = match answers {
            Ok(answers) => answers.into_inner(),
            Err(refusal) => return (Vec::new(), Err(refusal)),
        };
        let mut all = Vec::new();
        loop {
            match answers.message().await {
                Ok(Some(message)) => all.push(message),
                Ok(None) => return (all, Ok(())),
                Err(refusal) => return (all, Err(refusal)),
            }
        }
    }
}

impl Peer {
    /// Opens a stream of messages both ways; what `messages` receives is sent.
    pub async fn open<A, R>(
        &self,
        method: &str,
        messages: tokio::sync::mpsc::Receiver<A>,
    ) -> Result<tonic::Streaming<R>, Status>
    where
        A: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let codec = ProstCodec::<A, R>::default();
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let request = self.request(messages);
        let mut grpc = self.grpc().await;
        let answers = grpc.streaming(request, path(method), codec).await;
        answers.map(Response::into_inner)
    }
}

fn path(method: &str) -> PathAndQuery {
    let whole = if method.starts_with("grpc.") {
        format!("/{method}")
    } else {
        format!("/containerd.services.{method}")
    };
    whole.parse().unwrap()
}

/// An answer as a text: the message, or code and words of the refusal.
pub fn told<R: std::fmt::Debug>(answer: &Result<R, Status>) -> String {
    match answer {
        Ok(message) => format!("{message:?}"),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// The code of an answer.
pub fn code<R>(answer: &Result<R, Status>) -> Code {
    answer.as_ref().map_or_else(Status::code, |_| Code::Ok)
}

/// Debian's containerd on folders of its own.
pub struct Reference {
    pub dir: tempfile::TempDir,
    daemon: Background,
}

impl Reference {
    /// Starts one; `more` is appended to its configuration.
    pub fn new(more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("wr").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let config = format!(
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n{more}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n",
            at("opt")
        );
        fs::write(at("config.toml"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "containerd", "--config"])
            .arg(at("config.toml"))
            .arg("--root")
            .arg(at("root"))
            .arg("--state")
            .arg(at("state"))
            .arg("--address")
            .arg(at("s.sock"))
            .stderr(Stdio::from(log));
        let daemon = background(&mut command, &at("out"));
        let reference = Self { dir, daemon };
        let answers = || {
            UnixStream::connect(reference.address()).is_ok()
                && fs::read_to_string(reference.dir.path().join("log"))
                    .is_ok_and(|log| log.contains("successfully booted"))
        };
        eventually("containerd answers", answers);
        reference
    }

    pub fn address(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }
}

impl Reference {
    fn ctr(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("ctr");
        run(command.arg("-a").arg(self.address()).args(arguments)).stdout
    }

    /// Ends what tests have left running, and what runc and cgroups leave of a namespace.
    fn clean(&self) {
        for namespace in self.ctr(&["ns", "ls", "-q"]).lines() {
            for id in self.ctr(&["-n", namespace, "task", "ls", "-q"]).lines() {
                self.ctr(&["-n", namespace, "task", "rm", "-f", id]);
            }
            let _ = fs::remove_dir(Path::new("/run/containerd/runc").join(namespace));
            for controller in fs::read_dir("/sys/fs/cgroup")
                .into_iter()
                .flatten()
                .flatten()
            {
                let _ = fs::remove_dir(controller.path().join(namespace));
            }
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.clean();
        self.daemon.stop();
    }
}

/// All of a blob from `offset` on.
pub async fn read_blob(peer: &Peer, digest: &str, offset: i64) -> Result<Vec<u8>, Status> {
    let request = ReadContentRequest {
        digest: digest.to_owned(),
        offset,
        size: 0,
    };
    let mut stream = peer
        .stream::<_, ReadContentResponse>("content.v1.Content/Read", request)
        .await?;
    let mut all = Vec::new();
    while let Some(part) = stream.message().await? {
        all.extend(part.data);
    }
    Ok(all)
}
