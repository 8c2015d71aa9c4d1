//! The shim's ttrpc server: the task service, v2 and v3 on one socket, on the one thread.
//!
//! It is our own rather than the `ttrpc` crate's for what the crate cannot do: answer unknown
//! services with UNIMPLEMENTED (containerd 2.x falls back to task v2 on that code alone), refuse a
//! peer of another group, and back off when descriptors run out. `docs/adr/0003-ttrpc-server.md`
//! has the figures.
//!
//! A call is a future of its connection: it is dropped when the client goes away or its deadline
//! passes. Handlers therefore only hand a command to the supervisor and await its reply, so that
//! nothing is left half done (design, rule 6).

mod connection;
pub(crate) mod frame;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use task_api::status::Refusal;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long the accept loop rests after a failure that would otherwise repeat at once, such as
/// running out of descriptors; doubled up to [`REST_LIMIT`].
const REST: Duration = Duration::from_millis(50);
const REST_LIMIT: Duration = Duration::from_secs(2);

/// The generation of the task service a call was made on; their messages are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskApi {
    /// `containerd.task.v2.Task`: containerd 1.x.
    V2,
    /// `containerd.task.v3.Task`: containerd 2.x.
    V3,
}

impl TaskApi {
    fn of(service: &str) -> Option<Self> {
        match service {
            "containerd.task.v2.Task" => Some(Self::V2),
            "containerd.task.v3.Task" => Some(Self::V3),
            _ => None,
        }
    }
}

macro_rules! methods {
    ($($name:ident),* $(,)?) => {
        /// The calls of the task service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is the service's method of that name")]
        pub enum Method { $($name),* }

        impl Method {
            /// All seventeen.
            pub const ALL: [Self; 17] = [$(Self::$name),*];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            fn of(name: &str) -> Option<Self> {
                match name { $(stringify!($name) => Some(Self::$name),)* _ => None }
            }
        }
    };
}

methods!(
    State, Create, Start, Delete, Pids, Pause, Resume, Checkpoint, Kill, Exec, ResizePty, CloseIO,
    Update, Wait, Stats, Connect, Shutdown,
);

/// One call, undecoded.
#[derive(Debug)]
pub struct Call {
    /// Which call.
    pub method: Method,
    /// On which generation of the service.
    pub api: TaskApi,
    /// The request message, protobuf.
    pub payload: Vec<u8>,
}

/// What the server calls. The returned future may be dropped at any await.
pub trait TaskHandler: Clone + 'static {
    /// Answers one call with the encoded reply.
    fn call(&self, call: Call) -> impl Future<Output = Result<Vec<u8>, Refusal>> + 'static;
}

/// The user and group whose connections are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peers {
    uid: u32,
    gid: u32,
}

/// What the accept loop, the connections and the handle share.
#[derive(Debug)]
struct Shared {
    connections: Cell<usize>,
    /// Wakes [`Server::emptied`].
    changed: tokio::sync::Notify,
}

/// Counts one connection as long as it lives.
struct Counted(Rc<Shared>);

impl Counted {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.connections.set(shared.connections.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0
            .connections
            .set(self.0.connections.get().saturating_sub(1));
        self.0.changed.notify_waiters();
    }
}

/// A running server. Dropping it ends it at once, with its connections.
#[derive(Debug)]
pub struct Server {
    shared: Rc<Shared>,
    stop: watch::Sender<bool>,
    accept: JoinHandle<()>,
}

impl Server {
    /// Serves `listener`, a listening unix stream socket, with `handler`. Only peers of our own
    /// effective user and group are served, as with Go's shims. Must be called within a LocalSet.
    ///
    /// # Errors
    /// The descriptor is no listening unix stream socket, or cannot be registered.
    pub fn start(listener: OwnedFd, handler: impl TaskHandler) -> io::Result<Self> {
        let peers = Peers {
            uid: sys::process::euid(),
            gid: sys::process::egid(),
        };
        Self::start_for(listener, handler, peers)
    }

    fn start_for(listener: OwnedFd, handler: impl TaskHandler, peers: Peers) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(listener);
        // Asking for the local address fails for what is no unix socket.
        listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let shared = Rc::new(Shared {
            connections: Cell::new(0),
            changed: tokio::sync::Notify::new(),
        });
        let (stop, stopped) = watch::channel(false);
        let accept = accept_loop(listener, handler, peers, Rc::clone(&shared), stopped);
        let accept = tokio::task::spawn_local(accept);
        Ok(Self {
            shared,
            stop,
            accept,
        })
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.connections.get()
    }

    /// Returns once no connection is open; at once when none is.
    pub async fn emptied(&self) {
        loop {
            let changed = self.shared.changed.notified();
            if self.connections() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Returns once the accept loop, hence the listener and every connection, is gone.
    async fn ended(&self) {
        self.stop.closed().await;
    }

    /// Stops accepting, closes the listening socket, and lets the replies of calls in flight leave;
    /// each connection closes when it has none. Returns after `limit` at the latest.
    pub async fn stop(&self, limit: Duration) {
        // Fails only when the loop has ended already.
        let _ended = self.stop.send(true);
        if tokio::time::timeout(limit, self.ended()).await.is_err() {
            log::warn!(
                "server: {} connections still open at the end",
                self.connections()
            );
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Accepts connections and drives them, all in this one future: a task of the runtime per connection
/// would cost the heap what `connection` says of calls. Ends when stopped and without connections.
async fn accept_loop(
    listener: UnixListener,
    handler: impl TaskHandler,
    peers: Peers,
    shared: Rc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut listener = Some(listener);
    let mut open = FuturesUnordered::new();
    let (mut rest, mut rests_until) = (REST, None);
    while listener.is_some() || !open.is_empty() {
        tokio::select! {
            Some(()) = open.next(), if !open.is_empty() => {}
            accepted = accept(listener.as_ref(), rests_until) => match accepted {
                Ok(stream) => {
                    (rest, rests_until) = (REST, None);
                    if let Err(why) = admit(&stream, peers) {
                        log::warn!("server: connection refused: {why}");
                        continue;
                    }
                    let (handler, stopped) = (handler.clone(), stopped.clone());
                    let counted = Counted::new(&shared);
                    open.push(async move {
                        let _counted = counted;
                        if let Err(e) = connection::serve(stream, handler, stopped).await {
                            log::debug!("server: connection ended: {e}");
                        }
                    });
                }
                // The client left while it was waiting: nothing to rest for.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    // Out of descriptors or memory: the socket stays readable, and accepting again
                    // at once would spin for as long as it lasts.
                    log::error!("server: accept: {e}; again in {} ms", rest.as_millis());
                    rests_until = Some(Instant::now() + rest);
                    rest = (rest * 2).min(REST_LIMIT);
                }
            },
            changed = stopped.changed(), if listener.is_some() => {
                if changed.is_err() || *stopped.borrow() {
                    listener = None;
                }
            }
        }
    }
}

/// The next connection, after the rest that is due; never when there is no listener any more.
async fn accept(
    listener: Option<&UnixListener>,
    rests_until: Option<Instant>,
) -> io::Result<UnixStream> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    if let Some(until) = rests_until {
        tokio::time::sleep_until(until).await;
    }
    listener.accept().await.map(|(stream, _)| stream)
}

/// Refuses a peer of another user or group, whatever the socket's mode let through.
fn admit(stream: &UnixStream, peers: Peers) -> Result<(), String> {
    let peer = stream
        .peer_cred()
        .map_err(|e| format!("peer unknown: {e}"))?;
    if (peer.uid(), peer.gid()) == (peers.uid, peers.gid) {
        return Ok(());
    }
    Err(format!(
        "peer has uid {} and gid {}, only {} and {} are served",
        peer.uid(),
        peer.gid(),
        peers.uid,
        peers.gid
    ))
}

#[cfg(test)]
mod tests;
