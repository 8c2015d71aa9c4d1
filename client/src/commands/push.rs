//! `wherry push`: sends an image to a registry.

use clap::Args;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::platform::Platform;
use crate::image::progress::Progress;
use crate::image::record;
use crate::registry::{Name, Options, Registry};
use crate::transfer::{self, push};
use crate::{output, signals};

/// Send an image to a registry
///
/// What the registry has already is not sent again. Prints the image's name with its digest.
#[derive(Debug, Args)]
pub(crate) struct Push {
    #[command(flatten)]
    registry: Options,
    /// Send only the image for this platform, such as linux/arm64 [default: all there are]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// How many layers are sent at once
    #[arg(long, value_name = "NUMBER", default_value = "3", value_parser = super::parallel)]
    parallel: usize,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image here
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Its name in the registry [default: the same]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Push {
    /// Pushes it.
    ///
    /// # Errors
    /// What kept it from being pushed.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let name = Name::parse(self.name.as_ref().unwrap_or(&self.image))?;
        let image = record::find(connection, &self.image)
            .await?
            .ok_or_else(|| {
                Error::said(format!(
                    "there is no image {} here (wherry images)",
                    self.image
                ))
            })?;
        let registry = Registry::open(&name, &self.registry)?;
        let wanted = transfer::Push {
            name: &name,
            registry: &registry,
            root: record::target(&image)?,
            platform: self.platform,
            parallel: self.parallel,
        };
        let progress = Progress::new(self.quiet);
        let mut signals = signals::listen()?;
        let root = push(connection, &wanted, &progress, &mut signals).await?;
        output::say(name.with_digest(root.digest().as_ref()))
    }
}
