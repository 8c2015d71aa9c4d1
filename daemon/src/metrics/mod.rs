//! Metrics in Prometheus' text format, under containerd's names: of every container, of the calls
//! served, and of the daemon's process. They are served over plain HTTP at the address that the
//! configuration names.

pub mod calls;
mod containers;
mod http;
pub mod process;
mod text;
mod v1;
mod v2;

use std::sync::Arc;

pub use http::serve;

use crate::grpc::Services;
use crate::version;
use calls::Calls;
use text::Text;

/// Where metrics come from.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The tasks and their records.
    pub services: Services,
    /// The calls served.
    pub calls: Arc<Calls>,
    /// Whether containers are told about.
    pub with_containers: bool,
}

impl Metrics {
    /// All of it as one text. Shims are asked; one that does not answer is left out after 2 s.
    pub async fn text(&self) -> String {
        let mut text = Text::default();
        if self.with_containers {
            containers::write(&self.services, &mut text).await;
        }
        let name = "containerd_build_info_total";
        text.family(name, "counter", "The daemon's version.")
            .sample(
                &[("revision", version::REVISION), ("version", version::API)],
                1,
            );
        let (unpacked, shared) = self.services.unpacker.counts();
        let help = "Layers that clients asked for: unpacked, or found unpacked by another.";
        let mut layers = text.family("wherry_layers_total", "counter", help);
        layers.sample(&[("how", "unpacked")], unpacked);
        layers.sample(&[("how", "shared")], shared);
        self.calls.write(&mut text);
        process::write(&mut text);
        text.into_string()
    }
}
