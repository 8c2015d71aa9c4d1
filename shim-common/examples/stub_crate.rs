//! A shim that does nothing but answer, on the `ttrpc` crate's server: the other side of the
//! comparison in `docs/adr/0003-ttrpc-server.md`. Takes the path to listen at.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use shim_common::server::Method;
use ttrpc::asynchronous::{MethodHandler, Server, Service, TtrpcContext};
use ttrpc::proto::{Request, Response};

struct Stub;

impl MethodHandler for Stub {
    fn handler<'a, 'b>(
        &'a self,
        _context: TtrpcContext,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = ttrpc::Result<Response>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let mut response = Response::new();
        response.payload = request.payload;
        Box::pin(async move { Ok(response) })
    }
}

fn main() -> std::io::Result<()> {
    sys::process::arena_limit();
    let path = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let services = ["containerd.task.v2.Task", "containerd.task.v3.Task"].map(|name| {
            let methods = Method::ALL.map(|m| {
                (
                    m.name().to_owned(),
                    Box::new(Stub) as Box<dyn MethodHandler + Send + Sync>,
                )
            });
            let service = Service {
                methods: HashMap::from(methods),
                streams: HashMap::new(),
            };
            (name.to_owned(), service)
        });
        let mut server = Server::new()
            .bind(&format!("unix://{path}"))
            .map_err(std::io::Error::other)?
            .register_service(HashMap::from(services));
        server.start().await.map_err(std::io::Error::other)?;
        std::future::pending().await
    })
}
