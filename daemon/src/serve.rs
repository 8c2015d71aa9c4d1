//! The daemon from its folders to its end: what is opened in which order, and how it stops.
//!
//! The database comes first: it is what a second daemon on the same root stumbles over, before
//! it has touched a socket. Both sockets are served before the shims of an earlier daemon are
//! asked after.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;

use crate::config::Config;
use crate::content::Content;
use crate::exchange::Exchange;
use crate::gc::Collector;
use crate::grpc::{self, Services};
use crate::setup;
use crate::shim::manager::Manager;
use crate::shim::process::Surroundings;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::ttrpc::server as events;

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
    let store = Store::open(&own.join("meta.redb"))?;
    let uuid = uuid(&own.join("uuid"))?;
    let exchange = Arc::new(Exchange::default());
    let surroundings = Surroundings::new(&config).map_err(|error| error.to_string())?;
    let ttrpc_socket = config.ttrpc_socket();
    let ttrpc_address = ttrpc_socket.0.clone();
    let manager = Arc::new(Manager::new(&config, surroundings, exchange.clone()));
    let content = Content::open(&config.root, store.clone())
        .map_err(|refusal| refusal.message().to_owned())?;
    let snapshots = Snapshots::new(&config, store.clone());
    snapshots.recover();
    let collector = Collector::new(content.clone(), snapshots.clone(), exchange.clone());
    let services = Services {
        store,
        collector: collector.clone(),
        content,
        snapshots,
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
    tokio::spawn(events::serve(ttrpc, Arc::new(services.clone())));
    log::info!(
        "serving at {} and {}",
        config.address.display(),
        ttrpc_address.display()
    );
    crate::notify::systemd("READY=1");
    tokio::spawn(collector.run(config.gc));

    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let router = grpc::router(&services, &config);
    let served = router.serve_with_incoming(UnixListenerStream::new(grpc));
    tokio::select! {
        ended = served => ended.map_err(|error| format!("gRPC: {error}"))?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    crate::notify::systemd("STOPPING=1");
    log::info!("stopping");
    Ok(())
}

fn folder(path: &Path) -> Result<(), String> {
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
    if (uid, gid) != (sys::process::euid(), sys::process::egid()) {
        chown(path, Some(uid), Some(gid)).map_err(told)?;
    }
    UnixListener::from_std(StdListener::from(listener)).map_err(told)
}
