//! An image made ready for one container: found, unpacked if need be, and a snapshot on top of it
//! that the container may write to.

use core_api::types::Mount;
use oci_spec::image::{Config, ImageConfiguration};
use tonic::Code;

use super::lease::Lease;
use super::platform::Platform;
use super::progress::Progress;
use super::snapshot;
use super::tree::{self, Which};
use super::unpack::{self, Unpackable};
use super::{content, record};
use crate::connection::Connection;
use crate::error::{Error, Result};

/// What the command line says of an image to be run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// Its name, as it was typed.
    pub(crate) name: &'a str,
    /// For which platform; this machine's if none is said.
    pub(crate) platform: Option<&'a Platform>,
    /// The snapshotter, if one is said.
    pub(crate) snapshotter: Option<&'a str>,
}

/// An image with a snapshot for a container.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The whole name of the image.
    pub(crate) name: String,
    /// Which snapshotter has the snapshot.
    pub(crate) snapshotter: String,
    /// How the snapshot is mounted.
    pub(crate) mounts: Vec<Mount>,
    /// How the image wants to be run.
    pub(crate) config: Config,
}

/// Makes an image ready. The snapshot is kept by the lease until a container's record does.
///
/// # Errors
/// There is no such image or it is broken, or there is such a snapshot already.
pub(crate) async fn make(
    lease: &Lease,
    container: &str,
    choice: Choice<'_>,
    progress: &Progress,
) -> Result<Ready> {
    let connection = lease.connection();
    let typed = choice.name;
    let missing = || {
        Error::said(format!(
            "there is no image {typed} here: wherry pull {typed} gets it, wherry import takes it \
             from an archive"
        ))
    };
    let image = record::find(connection, typed).await?.ok_or_else(missing)?;
    let wanted = choice.platform.cloned().unwrap_or_else(Platform::here);
    let about = |error: Error| Error::said(format!("{}: {error}", image.name));
    let which = Which::Best(wanted);
    let tree = tree::walk(connection, &record::target(&image)?, &which)
        .await
        .map_err(about)?;
    let manifest = tree.manifests.into_iter().next();
    let manifest = manifest.ok_or_else(|| about(Error::said("it names no manifest")))?;
    let config = content::read_config(connection, manifest.config())
        .await
        .map_err(about)?;
    let made_for = Platform::of_config(&config);
    if let Some(wanted) = choice.platform
        && wanted.rank(&made_for).is_none()
    {
        let text = format!("it is made for {made_for}, and {wanted} is asked for");
        return Err(about(Error::said(text)));
    }
    let unpackable = Unpackable::new(manifest, &config).map_err(about)?;
    let snapshotter = snapshot::snapshotter(connection, choice.snapshotter).await?;
    // Whatever is there already is held by the lease now.
    unpack::unpack(lease, &snapshotter, &unpackable, progress)
        .await
        .map_err(about)?;
    let parent = unpackable.top().unwrap_or_default();
    let mounts = prepare(connection, &snapshotter, container, parent).await?;
    let config = ImageConfiguration::config(&config)
        .clone()
        .unwrap_or_default();
    Ok(Ready {
        name: image.name.clone(),
        snapshotter,
        mounts,
        config,
    })
}

async fn prepare(
    connection: &Connection,
    snapshotter: &str,
    container: &str,
    parent: &str,
) -> Result<Vec<Mount>> {
    match snapshot::prepare(connection, snapshotter, container, parent).await {
        Ok(mounts) => Ok(mounts),
        Err(status) if status.code() == Code::AlreadyExists => Err(Error::said(format!(
            "there is a container {container} already, or a snapshot of that name (wherry rm \
             {container} removes both)"
        ))),
        Err(status) => Err(Error::refused(
            format!("a snapshot for {container}"),
            status,
        )),
    }
}
