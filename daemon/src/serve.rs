//! The daemon from its folders to its end: what is opened in which order, and how it stops.
//!
//! The database comes first: it is what a second daemon on the same root stumbles over, before
//! it has touched a socket. Both sockets are served before the shims of an earlier daemon are
//! asked after.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::content::Content;
use crate::diff::Differ;
use crate::exchange::Exchange;
use crate::gc::Collector;
use crate::grpc::layer::{Around, Ending};
use crate::grpc::{self, Services};
use crate::metrics::calls::Calls;
use crate::metrics::{self, Metrics};
use crate::shim::manager::Manager;
use crate::shim::process::Surroundings;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::ttrpc::server as events;
use crate::unpack::Unpacker;
use crate::{accept, dump, setup};

/// How long calls may take to end by themselves when the daemon stops.
const SHORT_CALLS: Duration = Duration::from_millis(200);
/// How long those that do work may take after that, while those that only wait are ended.
const LONGER_CALLS: Duration = Duration::from_secs(1);
/// How long the last clients may take to read that their calls were ended.
const GOODBYE: Duration = Duration::from_millis(300);
/// How long a stop waits for a collection that is under way.
const COLLECTION: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. Containers stay, and so do their shims.
///
/// # Errors
/// A text that says what could not be set up.
pub async fn serve(config: Config) -> Result<(), String> {
    setup::required_plugins(&config, || grpc::PARTS.to_vec())?;
    setup::process(&config)?;
    folder(&config.root)?;
    folder(&config.state)?;
    let own = config.own_folder();
    folder(&own)?;
    // What is in the metadata is for nobody else: environments of containers, for instance.
    fs::set_permissions(&own, Permissions::from_mode(0o700))
        .map_err(|error| format!("{}: {error}", own.display()))?;
    let store = Store::open(&own.join("meta.redb"))?;
    let uuid = uuid(&own.join("uuid"))?;
    let exchange = Arc::new(Exchange::default());
    let surroundings = Surroundings::new(&config).map_err(|error| error.to_string())?;
    let ttrpc_socket = config.ttrpc_socket();
    let ttrpc_address = ttrpc_socket.0.clone();
    let manager = Arc::new(Manager::new(&config, surroundings, exchange.clone()));
    let mut content = Content::open(&config.root, store.clone())
        .map_err(|refusal| refusal.message().to_owned())?;
    content.isolated = config.content_sharing_policy == "isolated";
    let snapshots = Snapshots::new(&config, store.clone());
    snapshots.recover();
    let collector = Collector::new(content.clone(), snapshots.clone(), exchange.clone());
    let differ = Differ::new(
        Arc::new(content.clone()),
        &config.root,
        config.unpack_reserve as u64,
    );
    let services = Services {
        store,
        collector: collector.clone(),
        content,
        unpacker: Unpacker::new(differ.clone(), snapshots.clone()),
        snapshots,
        differ,
        manager: manager.clone(),
        exchange,
        uuid: uuid.into(),
    };

    let ttrpc = listen(&ttrpc_address, ttrpc_socket.1, ttrpc_socket.2)?;
    let grpc = listen(&config.address, config.uid, config.gid)?;
    // The table is complete before the first call is answered; connecting goes on behind.
    manager
        .reload()
        .map_err(|error| format!("{}: {error}", config.state.display()))?;
    let there = manager.table().into_iter();
    services
        .exchange
        .keep_ends_of(there.map(|entry| (entry.namespace, entry.id)).collect());
    tokio::spawn(events::serve(ttrpc, Arc::new(services.clone())));
    log::info!(
        "serving at {} and {}",
        config.address.display(),
        ttrpc_address.display()
    );
    crate::notify::systemd("READY=1");
    tokio::spawn(collector.clone().run(config.gc));

    let calls = Arc::new(Calls::new(config.grpc_histogram));
    if !config.metrics_address.is_empty() {
        let told = |error: io::Error| format!("metrics at {}: {error}", config.metrics_address);
        let listener = TcpListener::bind(&config.metrics_address).await;
        let metrics = Metrics {
            services: services.clone(),
            calls: calls.clone(),
            with_containers: !config.no_prometheus,
        };
        tokio::spawn(metrics::serve(listener.map_err(told)?, metrics));
    }
    let mut dump = signal(SignalKind::user_defined1()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let ending = watch::Sender::new(Ending::None);
    let around = Around::new(calls.clone(), ending.subscribe());
    let router = grpc::router(&services, around, &config);
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let served = router.serve_with_incoming_shutdown(accept::connections(grpc), async move {
        stopped.notified().await;
    });
    tokio::pin!(served);
    loop {
        tokio::select! {
            ended = &mut served => {
                ended.map_err(|error| format!("gRPC: {error}"))?;
                return Err("gRPC: the server has ended".to_owned());
            }
            _ = dump.recv() => {
                tokio::spawn(dump::dump(services.clone(), calls.clone()));
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    crate::notify::systemd("STOPPING=1");
    log::info!("stopping");
    // From here on nobody is accepted. What is short comes to its end by itself; who waits for
    // what may take for ever is told that the daemon goes, and then whoever is left.
    stop.notify_one();
    for (end, limit) in [
        (Ending::None, SHORT_CALLS),
        (Ending::Waits, LONGER_CALLS),
        (Ending::All, GOODBYE),
    ] {
        ending.send_replace(end);
        if tokio::time::timeout(limit, &mut served).await.is_ok() {
            break;
        }
    }
    for (path, open) in calls.going_on() {
        log::warn!("stopped under {open} of {path}");
    }
    let rest = tokio::time::timeout(COLLECTION, collector.rest()).await;
    if rest.is_err() {
        log::warn!("stopped under a collection; the next start removes what it has left");
    }
    Ok(())
}

/// Makes a folder that others may go through and not look into, and those above it.
pub(crate) fn folder(path: &Path) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// The identity of this installation, made once.
fn uuid(path: &Path) -> Result<String, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    if let Ok(text) = fs::read_to_string(path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let fresh = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(told)?;
    sys::fs::write_file_atomic(path, fresh.trim().as_bytes(), 0o644).map_err(told)?;
    Ok(fresh.trim().to_owned())
}

/// Listens at `path`, in place of a socket that nobody listens at any more.
fn listen(path: &Path, uid: u32, gid: u32) -> Result<UnixListener, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    if let Some(parent) = path.parent() {
        folder(parent)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(format!("{}: another daemon serves there", path.display()));
    }
    sys::fs::remove_if_exists(path).map_err(told)?;
    let listener = sys::socket::listen_unix(path, 0o660).map_err(told)?;
    // What the umask took away: the group is who may call besides root.
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(told)?;
    if (uid, gid) != (sys::process::euid(), sys::process::egid()) {
        chown(path, Some(uid), Some(gid)).map_err(told)?;
    }
    UnixListener::from_std(StdListener::from(listener)).map_err(told)
}
