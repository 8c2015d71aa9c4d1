//! What an archive holds, taken into the daemon in the order it comes: each file becomes a blob,
//! since only the documents say which are needed, and they may come last. Whatever turns out not to
//! be needed goes with the lease.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::Digest;

use super::entries::Entry;
use super::source::{Compression, Piece, Pieces};
use super::{BLOBS, DOCKER, INDEX, LAYOUT};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::progress::Progress;
use crate::image::upload::{self, Opened, Wanted};
use crate::image::{digest, manifest};
use crate::random;

/// How many files an archive may hold: an image has a few hundred.
const MOST: usize = 100_000;
/// How many links lead to a file at most.
const LONGEST_WAY: usize = 16;
/// What `docker save` writes beside what is needed.
const NEEDLESS: [&str; 3] = ["VERSION", "repositories", "json"];

/// A file that is a blob now.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
}

/// What an archive held.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// `index.json`.
    pub(crate) index: Option<Vec<u8>>,
    /// `manifest.json`.
    pub(crate) docker: Option<Vec<u8>>,
    files: HashMap<String, Stored>,
    links: HashMap<String, String>,
}

impl Intake {
    /// The file of a name, wherever links lead.
    pub(crate) fn file(&self, name: &str) -> Option<&Stored> {
        let mut name = name.trim_start_matches("./");
        for _ in 0..LONGEST_WAY {
            match (self.files.get(name), self.links.get(name)) {
                (Some(file), _) => return Some(file),
                (None, Some(target)) => name = target,
                (None, None) => return None,
            }
        }
        None
    }
}

/// Takes in what the pieces are.
///
/// # Errors
/// The archive cannot be read, or a blob in it is not what its name says.
pub(crate) async fn take(
    connection: &Connection,
    mut pieces: Pieces,
    progress: &Progress,
) -> Result<Intake> {
    let mut intake = Intake::default();
    let mut count = 0;
    while let Some(piece) = pieces.recv().await {
        let Piece::Entry(entry) = piece? else {
            continue;
        };
        count += 1;
        if count > MOST {
            return Err(Error::said(format!(
                "the archive holds more than {MOST} files"
            )));
        }
        match entry {
            Entry::Link { name, target } => {
                intake.links.insert(name, target);
            }
            Entry::File { name, size } => match name.as_str() {
                INDEX => intake.index = Some(document(&name, size, &mut pieces).await?),
                DOCKER => intake.docker = Some(document(&name, size, &mut pieces).await?),
                LAYOUT => {}
                _ if is_needless(&name) => {}
                _ => {
                    let mut file = File {
                        connection,
                        name: &name,
                        size,
                        pieces: &mut pieces,
                    };
                    if let Some(stored) = file.take(progress).await? {
                        intake.files.insert(name, stored);
                    }
                }
            },
        }
    }
    Ok(intake)
}

fn is_needless(name: &str) -> bool {
    NEEDLESS.contains(&name.rsplit('/').next().unwrap_or(name))
}

/// The bytes of a document.
async fn document(name: &str, size: u64, pieces: &mut Pieces) -> Result<Vec<u8>> {
    if size > manifest::LARGEST {
        let largest = manifest::LARGEST;
        let text = format!("{name} in the archive has {size} bytes; it may have {largest}");
        return Err(Error::said(text));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.recv().await {
        match piece? {
            Piece::Data(data) => bytes.extend_from_slice(&data),
            _ => break,
        }
    }
    Ok(bytes)
}

/// The digest that a file's name is, if it is a blob of a layout: `blobs/KIND/DIGITS`.
fn named(name: &str) -> Option<Digest> {
    let (kind, digits) = name.strip_prefix(BLOBS)?.split_once('/')?;
    Digest::try_from(format!("{kind}:{digits}")).ok()
}

/// A file of the archive whose bytes come next.
struct File<'a> {
    connection: &'a Connection,
    name: &'a str,
    size: u64,
    pieces: &'a mut Pieces,
}

impl File<'_> {
    /// Makes it a blob; none if no blob can have its name.
    async fn take(&mut self, progress: &Progress) -> Result<Option<Stored>> {
        let digest = named(self.name);
        if digest.is_none() && self.name.starts_with(BLOBS) {
            return Ok(None);
        }
        let reference = match &digest {
            Some(digest) => format!("unknown-{digest}"),
            None => format!("import-{}", random::id()?),
        };
        let size = self.size;
        let label = match &digest {
            Some(digest) => digest::short(digest.as_ref()),
            None => self.name,
        };
        let part = progress.part(label, "reading", Some(size));
        let wanted = Wanted {
            reference,
            digest: digest.clone(),
            size,
        };
        let mut upload = match upload::open(self.connection, wanted).await? {
            Opened::There => None,
            Opened::Upload(upload) => Some(upload),
        };
        // What an earlier import that was broken off has written is there; the digest tells whether
        // it was the same.
        let mut there = upload.as_ref().map_or(0, upload::Upload::offset);
        let mut compression = Compression::None;
        let mut is_first = true;
        let found = loop {
            let piece = self.pieces.recv().await.unwrap_or(Ok(Piece::End(None)))?;
            match piece {
                Piece::Data(mut data) => {
                    if std::mem::take(&mut is_first) {
                        compression = Compression::of(&data);
                    }
                    part.more(data.len() as u64);
                    let known = usize::try_from(there).unwrap_or(usize::MAX).min(data.len());
                    there -= known as u64;
                    if let Some(upload) = &mut upload {
                        upload.write(data.split_off(known)).await?;
                    }
                }
                Piece::End(found) => break found,
                Piece::Entry(_) => break None,
            }
        };
        let digest = digest.or(found);
        let digest = digest.ok_or_else(|| Error::said(format!("{} is cut off", self.name)))?;
        if let Some(mut upload) = upload {
            upload.expect(digest.clone());
            let committed = upload.commit(BTreeMap::new()).await;
            committed.map_err(|error| self.damaged(&error))?;
        }
        Ok(Some(Stored {
            digest,
            size,
            compression,
        }))
    }

    fn damaged(&self, error: &Error) -> Error {
        Error::said(format!("{} in the archive: {error}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_files_and_not_in_circles() {
        let mut intake = Intake::default();
        let digest = digest::of(b"x");
        let stored = Stored {
            digest,
            size: 1,
            compression: Compression::None,
        };
        intake.files.insert("a.tar".to_owned(), stored);
        for (name, target) in [
            ("b", "a.tar"),
            ("c", "b"),
            ("d", "e"),
            ("e", "d"),
            ("f", "none"),
        ] {
            intake.links.insert(name.to_owned(), target.to_owned());
        }
        assert_eq!(intake.file("./c").unwrap().size, 1);
        for name in ["d", "f", "g"] {
            assert!(intake.file(name).is_none());
        }
    }

    #[test]
    fn only_digests_are_blobs() {
        let hex = "a".repeat(64);
        assert!(named(&format!("blobs/sha256/{hex}")).is_some());
        for name in [
            "blobs/sha256/x",
            "blobs/x",
            "sha256/x",
            "blobs/../etc/passwd",
        ] {
            assert!(named(name).is_none(), "{name}");
        }
        assert!(is_needless("abc/json") && !is_needless("abc.json"));
    }
}
