//! `wherry tag`: gives an image another name.

use clap::Args;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::lease::under_lease;
use crate::image::record;

/// Give an image another name
///
/// A name that is there already stands for this image from then on.
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The image
    #[arg(value_name = "NAME")]
    source: String,
    /// The other name
    #[arg(value_name = "NEW_NAME")]
    target: String,
}

impl Tag {
    /// Names it.
    ///
    /// # Errors
    /// There is no such image, or the other name is none.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let name = record::normalise(&self.target)?;
        // Held, so that it stays if its own name goes in between.
        under_lease(connection, async |lease| {
            let missing = || Error::said(format!("{}: no such image", self.source));
            let image = record::find(connection, &self.source)
                .await?
                .ok_or_else(missing)?;
            let target = record::target(&image)?;
            lease.hold("content", target.digest().as_ref()).await?;
            record::set(connection, &name, &target).await.map(drop)
        })
        .await
    }
}
