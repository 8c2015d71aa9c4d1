//! `wherry rmi`: removes images, and what only they kept.

use std::collections::BTreeSet;
use std::time::SystemTime;

use clap::Args;
use core_api::images::Image;

use super::tell;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::inventory::Inventory;
use crate::image::sizes::Sizes;
use crate::image::{progress, record};
use crate::output;

/// How many digits of a digest are enough to name an image.
const FEWEST: usize = 4;

/// Remove images
///
/// What no other image, container or lease needs goes with them, and is gone when this ends.
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Also those that containers use, and all names of a digest
    #[arg(short, long)]
    force: bool,
    /// Images, by name or by the first digits of the digest
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Rmi {
    /// Removes them.
    ///
    /// # Errors
    /// Some were refused; told already.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let mut all = Ok(());
        let mut images: Vec<Image> = Vec::new();
        let inventory = Inventory::take(connection).await?;
        let containers = &inventory.containers;
        for typed in &self.names {
            let found = self.find(connection, typed).await.and_then(|found| {
                let users = containers.iter().filter(|container| {
                    !self.force && found.iter().any(|image| image.name == container.image)
                });
                let users: Vec<&str> = users.map(|container| container.id.as_str()).collect();
                match users.first() {
                    None => Ok(found),
                    Some(user) => Err(Error::said(format!(
                        "{typed} is used by {}: remove it first (wherry rm {user}), or the image \
                         all the same with rmi -f",
                        users.join(", ")
                    ))),
                }
            });
            match found {
                Ok(found) => images.extend(found),
                Err(error) => tell(&mut all, Err(error)),
            }
        }
        let mut seen = BTreeSet::new();
        images.retain(|image| seen.insert(image.name.clone()));
        let goes = |image: &Image| seen.contains(&image.name);
        let unneeded = inventory.unneeded(goes, SystemTime::now());
        let sizes = Sizes::of(connection, &inventory, unneeded).await;
        let count = images.len();
        for (at, image) in images.iter().enumerate() {
            // One collection serves all.
            let deleted = record::delete(connection, &image.name, at + 1 == count).await;
            match deleted {
                Ok(()) => output::say(format_args!("removed {}", image.name))?,
                Err(error) => tell(&mut all, Err(error)),
            }
        }
        if count > 0 {
            let freed = sizes.gone(connection).await?;
            output::say(format_args!("freed {}", progress::bytes(freed)))?;
        }
        all
    }

    /// The images of a name, or of the start of a digest.
    async fn find(&self, connection: &Connection, typed: &str) -> Result<Vec<Image>> {
        if let Some(image) = record::find(connection, typed).await? {
            return Ok(vec![image]);
        }
        let digits = typed.strip_prefix("sha256:").unwrap_or(typed);
        let is_digits =
            digits.len() >= FEWEST && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let start = format!("sha256:{digits}");
        let mut found = Vec::new();
        if is_digits {
            found = record::list(connection, &[]).await?;
            found.retain(|image| digest(image).starts_with(&start));
        }
        let digests: BTreeSet<&str> = found.iter().map(digest).collect();
        let names: Vec<&str> = found.iter().map(|image| image.name.as_str()).collect();
        match (digests.len(), names.len()) {
            (0, _) => Err(Error::said(format!("{typed}: no such image"))),
            (1, 1) => Ok(found),
            (1, _) if self.force => Ok(found),
            (1, _) => Err(Error::said(format!(
                "{typed} has several names: {}; -f removes them all",
                names.join(", ")
            ))),
            _ => Err(Error::said(format!(
                "{typed} is the start of several digests: {}",
                names.join(", ")
            ))),
        }
    }
}

fn digest(image: &Image) -> &str {
    image
        .target
        .as_ref()
        .map_or("", |target| target.digest.as_str())
}
