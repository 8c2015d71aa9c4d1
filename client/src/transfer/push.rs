//! An image to a registry: first the blobs that it lacks, then what names them, its root last.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::Descriptor;
use tokio::time::sleep;

use super::{source_key, source_label, unless_asked_to_end};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::lease::under_lease;
use crate::image::manifest::{self, DEEPEST, Document, Kind, kind};
use crate::image::platform::{self, Platform};
use crate::image::progress::{self, Part, Progress};
use crate::image::{content, digest};
use crate::registry::{Faults, Name, Registry, Uploaded};
use crate::signals::Signals;

/// How often the sending of a blob is begun again.
const TRIES: u32 = 3;

/// What is to be pushed.
#[derive(Debug)]
pub(crate) struct Push<'a> {
    /// Under which name.
    pub(crate) name: &'a Name,
    pub(crate) registry: &'a Registry,
    /// What the image stands for here.
    pub(crate) root: Descriptor,
    /// Only the image for this platform; all that there is where none is said.
    pub(crate) platform: Option<Platform>,
    /// How many blobs are sent at once, at least one.
    pub(crate) parallel: usize,
}

/// Pushes an image; answers what its name stands for in the registry then.
///
/// # Errors
/// Part of it is not here, the registry refuses it, or somebody asked for an end.
pub(crate) async fn push(
    connection: &Connection,
    wanted: &Push<'_>,
    progress: &Progress,
    signals: &mut Signals,
) -> Result<Descriptor> {
    under_lease(connection, async |lease| {
        lease.hold("content", wanted.root.digest().as_ref()).await?;
        let what = format!("{} is not pushed", wanted.name);
        let step = Step {
            connection,
            wanted,
            progress,
        };
        unless_asked_to_end(signals, &what, step.push()).await
    })
    .await
}

struct Step<'a> {
    connection: &'a Connection,
    wanted: &'a Push<'a>,
    progress: &'a Progress,
}

/// A document and its bytes.
struct Named {
    what: Descriptor,
    bytes: Vec<u8>,
}

impl Step<'_> {
    async fn push(&self) -> Result<Descriptor> {
        let Push { name, registry, .. } = self.wanted;
        let (documents, blobs) = self.collect().await?;
        let sends = stream::iter(blobs).map(|blob| async move { self.blob(&blob).await });
        sends
            .buffer_unordered(self.wanted.parallel)
            .try_collect::<()>()
            .await?;
        let mut root = None;
        // Those that others name come first.
        for (place, document) in documents.into_iter().enumerate().rev() {
            let what = document.what;
            let reference = match (place, name.digest(), name.tag()) {
                (0, None, Some(tag)) => tag.to_owned(),
                _ => what.digest().to_string(),
            };
            let body = Bytes::from(document.bytes);
            let put = registry.put_manifest(name, &reference, &what, body).await;
            let answered = put.map_err(|faults| self.refusal(&what, faults))?;
            if let Some(other) = answered.filter(|answered| answered != what.digest().as_ref()) {
                return Err(Error::said(format!(
                    "{name}: {} was sent, and the registry made {other} of it",
                    what.digest()
                )));
            }
            self.label(&what).await?;
            root = Some(what);
        }
        root.ok_or_else(|| Error::said(format!("{name}: nothing was pushed")))
    }

    /// The documents, the root first and each before those that it names, and all blobs; each of
    /// them is here.
    async fn collect(&self) -> Result<(Vec<Named>, Vec<Descriptor>)> {
        let mut root = self.wanted.root.clone();
        if let Some(platform) = &self.wanted.platform {
            root = self.only(root, platform).await?;
        }
        if let Some(said) = self
            .wanted
            .name
            .digest()
            .filter(|said| *said != root.digest().as_ref())
        {
            let text = format!("it would be pushed as {said}, and is {}", root.digest());
            return Err(Error::said(format!("{}: {text}", self.wanted.name)));
        }
        let (mut documents, mut blobs) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        let mut left = vec![(root, 0)];
        while let Some((what, depth)) = left.pop() {
            if depth > DEEPEST {
                let text = format!("{}: an index in an index, {DEEPEST} deep", self.wanted.name);
                return Err(Error::said(text));
            }
            self.must_be_here(&what).await?;
            let bytes = content::read_whole(self.connection, what.digest()).await?;
            let document = manifest::read(&what, &bytes)?;
            for child in manifest::children(&document) {
                let is_new = seen.insert(child.digest().clone());
                match kind(child.media_type()) {
                    Kind::ForeignLayer => {}
                    // A document that two name comes behind both of them.
                    Kind::Index | Kind::Manifest => left.push((child.clone(), depth + 1)),
                    _ if is_new => {
                        self.must_be_here(child).await?;
                        blobs.push(child.clone());
                    }
                    _ => {}
                }
            }
            documents.push(Named { what, bytes });
        }
        Ok((documents, blobs))
    }

    /// The manifest for one platform.
    async fn only(&self, root: Descriptor, platform: &Platform) -> Result<Descriptor> {
        let name = self.wanted.name.to_string();
        let mut what = root;
        for _ in 0..=DEEPEST {
            self.must_be_here(&what).await?;
            match content::read_document(self.connection, &what).await? {
                Document::Manifest(manifest) => {
                    if kind(manifest.config().media_type()) == Kind::Config {
                        self.must_be_here(manifest.config()).await?;
                        let config = content::read_config(self.connection, manifest.config());
                        let own = Platform::of_config(&config.await?);
                        if platform.rank(&own).is_none() {
                            let text = format!("{name} is for {own}, and not for {platform}");
                            return Err(Error::said(text));
                        }
                    }
                    return Ok(what);
                }
                Document::Index(index) => {
                    what = platform::best(&name, index.manifests(), platform)?.clone();
                }
            }
        }
        Err(Error::said(format!(
            "{name}: an index in an index, {DEEPEST} deep"
        )))
    }

    async fn must_be_here(&self, what: &Descriptor) -> Result<()> {
        if content::info(self.connection, what.digest())
            .await?
            .is_some()
        {
            return Ok(());
        }
        let digest = what.digest();
        Err(Error::said(format!(
            "{digest} is not here: what was pulled for one platform is not whole (push it alone \
             with --platform OS/ARCH, or first wherry pull --all-platforms what it came from)"
        )))
    }

    async fn blob(&self, what: &Descriptor) -> Result<()> {
        let name = digest::short(what.digest().as_ref());
        let part = self.progress.part(name, "sending", Some(what.size()));
        let mut again = 0;
        let how = loop {
            match self.send(what, &part).await? {
                Ok(how) => break how,
                Err(faults) if faults.is_passing() && again < TRIES => {
                    self.progress
                        .tell(format_args!("{name}: broke off, begins anew: {faults}"));
                    sleep(faults.pause(again)).await;
                    again += 1;
                }
                Err(faults) => return Err(self.refusal(what, faults)),
            }
        };
        part.done(&how);
        self.label(what).await
    }

    /// Sends a blob if the registry lacks it; answers how it came there.
    async fn send(
        &self,
        what: &Descriptor,
        part: &Part,
    ) -> Result<std::result::Result<String, Faults>> {
        let Push { name, registry, .. } = self.wanted;
        match registry.has(name, what).await {
            Ok(true) => return Ok(Ok("is there already".to_owned())),
            Ok(false) => {}
            Err(faults) => return Ok(Err(faults)),
        }
        let from = self.other_repository(what).await?;
        let upload = match registry.begin(name, what, from.as_deref()).await {
            Ok(Uploaded::Begun(upload)) => upload,
            Ok(Uploaded::Mounted) => {
                let from = from.unwrap_or_default();
                return Ok(Ok(format!("taken over from {from}")));
            }
            Err(faults) => return Ok(Err(faults)),
        };
        part.at(0);
        let sent = upload.send(what, async |mut feed| {
            let mut reading = content::stream(self.connection, what.digest(), 0).await?;
            while let Some(bytes) = reading.next().await? {
                let length = bytes.len() as u64;
                if !feed.give(bytes.into()).await {
                    break;
                }
                part.more(length);
            }
            Ok(())
        });
        let size = progress::bytes(what.size());
        let done = sent.await?;
        Ok(done.map(|()| format!("sent, {size}")).map_err(Faults::from))
    }

    /// Another repository of the registry that a blob came from.
    async fn other_repository(&self, what: &Descriptor) -> Result<Option<String>> {
        let name = self.wanted.name;
        let info = content::info(self.connection, what.digest()).await?;
        let labels = info.map(|info| info.labels).unwrap_or_default();
        let known = labels.get(&source_key(name)).map_or("", String::as_str);
        let mut others = known.split(',').filter(|other| *other != name.repository());
        Ok(others.find(|other| !other.is_empty()).map(str::to_owned))
    }

    /// Remembers that the repository has it.
    async fn label(&self, what: &Descriptor) -> Result<()> {
        let info = content::info(self.connection, what.digest()).await?;
        let labels = info.map(|info| info.labels).unwrap_or_default();
        let name = self.wanted.name;
        let label = source_label(name, labels.get(&source_key(name)));
        content::set_labels(self.connection, what.digest(), [label].into()).await
    }

    fn refusal(&self, what: &Descriptor, faults: Faults) -> Error {
        faults.about(format_args!("{}: {}", self.wanted.name, what.digest()))
    }
}
