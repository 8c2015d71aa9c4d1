//! An image's documents as they hang together: from the descriptor that a record names down to the
//! manifests for the platforms that are wanted.

use std::pin::Pin;

use oci_spec::image::{Descriptor, ImageManifest};

use super::content;
use super::manifest::{self, DEEPEST, Document, Kind, kind};
use super::platform::{self, Platform};
use crate::connection::Connection;
use crate::error::{Error, Result};

/// Which of an index's manifests are wanted.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// The one that fits best.
    Best(Platform),
    /// All of them, those that are no images included.
    All,
}

/// What a walk saw: each document that was read, in order, with what it was chosen to name, and the
/// manifests among them.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// The descriptors of the indexes and manifests.
    pub(crate) documents: Vec<Descriptor>,
    /// The manifests.
    pub(crate) manifests: Vec<ImageManifest>,
}

impl Tree {
    /// The blobs of all that was seen, documents first; one that is named twice comes twice.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let parts = self
            .manifests
            .iter()
            .flat_map(|found| std::iter::once(found.config()).chain(found.layers()));
        let here = parts.filter(|part| kind(part.media_type()) != Kind::ForeignLayer);
        self.documents.iter().chain(here)
    }
}

/// Reads the documents below a descriptor.
///
/// # Errors
/// One is not there, damaged, or nothing is for the platform.
pub(crate) async fn walk(
    connection: &Connection,
    target: &Descriptor,
    which: &Which,
) -> Result<Tree> {
    Walk::run(connection, target, which, false).await
}

/// As [`walk`]; each document's blob is labelled so that it keeps what was chosen, which must all be
/// there.
///
/// # Errors
/// As [`walk`]; a blob that is not there is named.
pub(crate) async fn keep(
    connection: &Connection,
    target: &Descriptor,
    which: &Which,
) -> Result<Tree> {
    Walk::run(connection, target, which, true).await
}

struct Walk<'a> {
    connection: &'a Connection,
    which: &'a Which,
    keep: bool,
    tree: Tree,
}

impl<'a> Walk<'a> {
    async fn run(
        connection: &'a Connection,
        target: &Descriptor,
        which: &'a Which,
        keep: bool,
    ) -> Result<Tree> {
        let tree = Tree::default();
        let mut walk = Self {
            connection,
            which,
            keep,
            tree,
        };
        walk.visit(target, 0).await?;
        Ok(walk.tree)
    }

    /// Boxed, since indexes may be in indexes.
    fn visit<'b>(
        &'b mut self,
        descriptor: &'b Descriptor,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + 'b>> {
        Box::pin(async move {
            let digest = descriptor.digest();
            if depth > DEEPEST {
                let text = format!("the index {digest} is inside more than {DEEPEST} others");
                return Err(Error::said(text));
            }
            let read = content::read_document(self.connection, descriptor).await;
            let document = read.map_err(|error| match error.is_not_found() {
                true => Error::said(format!("the manifest {digest} is not there")),
                false => error,
            })?;
            let chosen: Vec<Descriptor> = match (&document, self.which) {
                (Document::Index(index), Which::Best(wanted)) => {
                    let name = format!("the index {digest}");
                    vec![platform::best(&name, index.manifests(), wanted)?.clone()]
                }
                (document, _) => manifest::children(document).into_iter().cloned().collect(),
            };
            if self.keep {
                let is_chosen = |child: &Descriptor| chosen.iter().any(|one| one == child);
                let labels = manifest::labels(&document, is_chosen);
                content::set_labels(self.connection, digest, labels).await?;
            }
            self.tree.documents.push(descriptor.clone());
            match document {
                Document::Index(_) => {
                    for child in &chosen {
                        self.visit(child, depth + 1).await?;
                    }
                }
                Document::Manifest(manifest) => {
                    if self.keep {
                        self.require(digest.as_ref(), &chosen).await?;
                    }
                    self.tree.manifests.push(manifest);
                }
            }
            Ok(())
        })
    }

    /// Refuses a manifest whose parts are not all there.
    async fn require(&self, manifest: &str, parts: &[Descriptor]) -> Result<()> {
        for part in parts {
            let digest = part.digest();
            let what = match kind(part.media_type()) {
                Kind::ForeignLayer => continue,
                Kind::Config => "configuration",
                Kind::Layer => "layer",
                _ => "blob",
            };
            if content::info(self.connection, digest).await?.is_none() {
                let text =
                    format!("the {what} {digest} is missing, which the manifest {manifest} names");
                return Err(Error::said(text));
            }
        }
        Ok(())
    }
}
