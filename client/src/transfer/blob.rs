//! One blob from a registry into the daemon: gone on with where an earlier pull, or a broken
//! connection, stopped.

use std::collections::BTreeMap;

use oci_spec::image::Descriptor;
use tokio::time::sleep;
use tonic::Code;

use super::source_label;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::lease::Lease;
use crate::image::progress::{self, Part, Progress};
use crate::image::upload::{self, CHUNK, Opened, Upload, Wanted};
use crate::image::{content, digest};
use crate::registry::{Faults, Name, Registry};

/// How often a connection may break without a byte having come.
const FRUITLESS: u32 = 5;

/// Where blobs come from and where they go.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) name: &'a Name,
    pub(super) registry: &'a Registry,
    /// Keeps the blobs. Uploads are begun without it: they are to outlive it, until the daemon
    /// finds that nobody goes on with them (a day).
    pub(super) lease: &'a Lease,
    pub(super) connection: &'a Connection,
    pub(super) progress: &'a Progress,
}

impl Source<'_> {
    /// A small thing, whole, which is in the daemon then.
    ///
    /// # Errors
    /// No host has it, or it is another.
    pub(super) async fn document(&self, what: &Descriptor) -> Result<Vec<u8>> {
        if self.is_there(what).await? {
            return content::read_whole(self.connection, what.digest()).await;
        }
        let read = self.registry.read(self.name, what).await;
        let bytes = read.map_err(|faults| self.refusal(what, faults))?;
        digest::verify(what.digest(), &bytes)?;
        upload::put(self.connection, what, &bytes, self.labels()).await?;
        Ok(bytes)
    }

    /// A blob, which is in the daemon then.
    ///
    /// # Errors
    /// No host has it, it is damaged, or the daemon refuses it.
    pub(super) async fn blob(&self, what: &Descriptor) -> Result<()> {
        let name = digest::short(what.digest().as_ref());
        if self.is_there(what).await? {
            self.progress.part(name, "", None).done("is there already");
            return Ok(());
        }
        let part = self.progress.part(name, "loading", Some(what.size()));
        loop {
            let waiting = |at| part.at(at);
            let opened = upload::open_telling(self.connection, Wanted::of(what), waiting).await?;
            let Opened::Upload(mut upload) = opened else {
                // Somebody else was faster.
                self.is_there(what).await?;
                part.done("is there already");
                return Ok(());
            };
            let begun_at = upload.offset();
            if begun_at <= what.size() {
                self.receive(&mut upload, what, &part).await?;
                part.now("checking");
                match upload.commit(self.labels()).await {
                    Ok(_) => {
                        let size = progress::bytes(what.size());
                        part.done(&format!("loaded, {size}"));
                        return Ok(());
                    }
                    Err(error) if is_damage(&error) && begun_at == 0 => {
                        self.forget(what).await;
                        let registry = self.name.registry();
                        let text = format!("what {registry} sends for it is damaged");
                        return Err(Error::said(format!("{}: {text}: {error}", self.name)));
                    }
                    Err(error) if is_damage(&error) => {}
                    Err(error) => return Err(error),
                }
            } else {
                drop(upload);
            }
            // What an earlier pull left cannot be right: all of it anew.
            self.forget(what).await;
        }
    }

    /// Whether the daemon has a blob, which is kept and labelled then.
    async fn is_there(&self, what: &Descriptor) -> Result<bool> {
        // Held first, there or not: nobody can remove it after it was seen.
        self.lease.hold("content", what.digest().as_ref()).await?;
        let Some(info) = content::info(self.connection, what.digest()).await? else {
            return Ok(false);
        };
        let (key, _) = source_label(self.name, None);
        let known = info.labels.get(&key);
        let (key, value) = source_label(self.name, known);
        if known != Some(&value) {
            content::set_labels(self.connection, what.digest(), [(key, value)].into()).await?;
        }
        Ok(true)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        [source_label(self.name, None)].into()
    }

    /// Throws away what is there of an upload. A daemon that did so itself may refuse.
    async fn forget(&self, what: &Descriptor) {
        let _ = upload::forget(self.connection, &upload::reference(what)).await;
    }

    fn refusal(&self, what: &Descriptor, faults: Faults) -> Error {
        faults.about(format_args!("{}: {}", self.name, what.digest()))
    }

    /// Receives what is missing, over as many connections as it takes.
    async fn receive(&self, upload: &mut Upload, what: &Descriptor, part: &Part) -> Result<()> {
        let mut fruitless = 0;
        while upload.offset() < what.size() {
            let before = upload.offset();
            part.at(before);
            let Err(faults) = self.stream(upload, what, part).await? else {
                continue;
            };
            if upload.offset() > before {
                fruitless = 0;
            }
            if !faults.is_passing() || fruitless == FRUITLESS {
                return Err(self.refusal(what, faults));
            }
            let (name, at) = (digest::short(what.digest().as_ref()), upload.offset());
            let text = format!("{name}: broke off after {at} bytes, goes on: {faults}");
            self.progress.tell(text);
            sleep(faults.pause(fruitless)).await;
            fruitless += 1;
        }
        Ok(())
    }

    /// Receives what one connection brings.
    async fn stream(
        &self,
        upload: &mut Upload,
        what: &Descriptor,
        part: &Part,
    ) -> Result<std::result::Result<(), Faults>> {
        let opened = self.registry.blob(self.name, what, upload.offset()).await;
        let mut blob = match opened {
            Ok(blob) => blob,
            Err(faults) => return Ok(Err(faults)),
        };
        let mut buffer = Vec::with_capacity(CHUNK);
        loop {
            match blob.next().await {
                Ok(Some(bytes)) => {
                    part.more(bytes.len() as u64);
                    let mut bytes = &bytes[..];
                    while buffer.len() + bytes.len() >= CHUNK {
                        let (now, later) = bytes.split_at(CHUNK - buffer.len());
                        buffer.extend_from_slice(now);
                        bytes = later;
                        let full = std::mem::replace(&mut buffer, Vec::with_capacity(CHUNK));
                        upload.write(full).await?;
                    }
                    buffer.extend_from_slice(bytes);
                }
                ended => {
                    // Also what came before it broke off counts.
                    upload.write(buffer).await?;
                    if let Err(fault) = &ended {
                        self.registry.avoid(fault);
                    }
                    return Ok(ended.map(drop).map_err(Faults::from));
                }
            }
        }
    }
}

/// Whether the daemon found another digest or size than was said.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Refused { status, .. } if status.code() == Code::FailedPrecondition)
}
