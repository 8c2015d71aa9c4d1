//! `wherry prune`: frees what nothing needs.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::SystemTime;

use clap::Args;
use core_api::images::Image;
use core_api::leases::{CreateRequest, DeleteRequest};

use super::tell;
use crate::connection::Connection;
use crate::error::{Context, Error, Result};
use crate::image::inventory::{self, Inventory};
use crate::image::sizes::Sizes;
use crate::image::{keepers, progress, record};
use crate::{output, random};

/// What stands for the name of an image that lost it.
const NAMELESS: &str = "<none>";

/// Free what nothing needs
///
/// Removes images without a name, leases that have expired, and then the blobs and snapshots that
/// nothing refers to any more. Images of containers stay.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Also all images that no container uses
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Prune {
    /// Prunes.
    ///
    /// # Errors
    /// Nobody said yes, or the daemon's refusal.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let inventory = Inventory::take(connection).await?;
        let now = SystemTime::now();
        let keepers = keepers::of(&inventory);
        let goes =
            |image: &Image| !keepers.keep(image) && (self.all || image.name.starts_with(NAMELESS));
        let images = inventory.images.iter().filter(|image| goes(image));
        let names: BTreeSet<&str> = images.map(|image| image.name.as_str()).collect();
        let unneeded = inventory.unneeded(goes, now);
        let sizes = Sizes::of(connection, &inventory, unneeded).await;
        if !names.is_empty() && !self.yes {
            let namespace = connection.namespace();
            ask(namespace, &names, sizes.sum())?;
        }
        let mut all = Ok(());
        for name in &names {
            match record::delete(connection, name, false).await {
                Ok(()) => output::say(format_args!("removed {name}"))?,
                Err(error) => tell(&mut all, Err(error)),
            }
        }
        for (lease, _) in &inventory.leases {
            if inventory::is_expired(lease, now) {
                let request = DeleteRequest {
                    id: lease.id.clone(),
                    sync: false,
                };
                let deleted = connection.leases().delete(request).await.map(drop);
                match deleted.about(format!("lease {}", lease.id)) {
                    // The daemon's own collector may have been first.
                    Err(error) if !error.is_not_found() => tell(&mut all, Err(error)),
                    _ => output::say(format_args!("removed the lease {}", lease.id))?,
                }
            }
        }
        collect(connection).await?;
        let freed = sizes.gone(connection).await?;
        output::say(format_args!("freed {}", progress::bytes(freed)))?;
        all
    }
}

/// Lets the daemon collect: it does at the end of a lease that wants it.
async fn collect(connection: &Connection) -> Result<()> {
    let id = format!("wherry-{}", random::id()?);
    let request = CreateRequest {
        id: id.clone(),
        ..CreateRequest::default()
    };
    connection
        .leases()
        .create(request)
        .await
        .about("cannot make a lease")?;
    let request = DeleteRequest { id, sync: true };
    let deleted = connection.leases().delete(request).await;
    deleted.map(drop).about("cannot collect")
}

/// Asks whether the images are to go.
fn ask(namespace: &str, names: &BTreeSet<&str>, size: u64) -> Result<()> {
    let mut stderr = io::stderr().lock();
    let mut question = String::new();
    for name in names {
        question += &format!("  {name}\n");
    }
    let count = names.len();
    let size = progress::bytes(size);
    let plural = if count == 1 { "image" } else { "images" };
    let asked = write!(
        stderr,
        "{question}Remove {count} {plural} of the namespace {namespace}, about {size}? [y/N] "
    );
    asked.and_then(|()| stderr.flush()).about("stderr")?;
    if !io::stdin().is_terminal() {
        let _ = writeln!(stderr);
        return Err(Error::said(
            "stdin is no terminal where somebody could say yes: -y says it",
        ));
    }
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).about("stdin")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::said("nothing was removed")),
    }
}
