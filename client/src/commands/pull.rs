//! `wherry pull`: fetches an image from a registry and unpacks it.

use clap::Args;

use crate::connection::Connection;
use crate::error::Result;
use crate::image::platform::Platform;
use crate::image::progress::Progress;
use crate::registry::{Name, Options, Registry};
use crate::transfer::{self, pull};
use crate::{output, signals};

/// Fetch an image from a registry
///
/// A pull that was broken off goes on where it stopped. Prints the image's name with its digest.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    registry: Options,
    /// Which of an image's platforms, such as linux/arm64 [default: this machine's]
    #[arg(
        long,
        value_name = "OS/ARCH[/VARIANT]",
        conflicts_with = "all_platforms"
    )]
    platform: Option<Platform>,
    /// Fetch it for all its platforms
    #[arg(long)]
    all_platforms: bool,
    /// Leave it packed
    #[arg(long, conflicts_with = "snapshotter")]
    no_unpack: bool,
    /// What it is unpacked into [default: the namespace's, or overlayfs]
    #[arg(long, value_name = "NAME", env = "CONTAINERD_SNAPSHOTTER")]
    snapshotter: Option<String>,
    /// How many layers are loaded at once
    #[arg(long, value_name = "NUMBER", default_value = "3", value_parser = super::parallel)]
    parallel: usize,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image, such as busybox or quay.io/team/app:1.2
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Pull {
    /// Pulls it.
    ///
    /// # Errors
    /// What kept it from being pulled.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let name = Name::parse(&self.image)?;
        let registry = Registry::open(&name, &self.registry)?;
        let progress = Progress::new(self.quiet);
        let wanted = transfer::Pull {
            name: &name,
            registry: &registry,
            platform: self.platform,
            all_platforms: self.all_platforms,
            unpack: (!self.no_unpack).then_some(self.snapshotter),
            parallel: self.parallel,
        };
        let mut signals = signals::listen()?;
        let root = pull(connection, &wanted, &progress, &mut signals).await?;
        output::say(name.with_digest(root.digest().as_ref()))
    }
}
