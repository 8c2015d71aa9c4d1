//! A shim that does nothing but answer, on our own server: what the server alone costs. Takes the
//! path to listen at. See `docs/adr/0003-ttrpc-server.md`.

use std::future::Future;

use shim_common::server::{Call, Server, TaskHandler};
use task_api::status::Refusal;

#[derive(Clone)]
struct Stub;

impl TaskHandler for Stub {
    fn call(&self, call: Call) -> impl Future<Output = Result<Vec<u8>, Refusal>> + 'static {
        std::future::ready(Ok(call.payload))
    }
}

fn main() -> std::io::Result<()> {
    sys::process::arena_limit();
    let path = std::env::args_os().nth(1).unwrap_or_default();
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let _server = Server::start(listener.into(), Stub)?;
        std::future::pending().await
    })
}
