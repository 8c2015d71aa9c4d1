//! The content store as the differ uses it: layers are read from it, and new ones put into it.

use std::fs::File;
use std::io::Read;

use core_api::content::Info;
use tonic::Status;

use super::digest::Digest;
use super::ingest::Writer;
use super::{Content, on_disk};
use crate::diff::UNCOMPRESSED;
use crate::diff::blobs::{Blobs, Upload};
use crate::status;
use crate::store::content::Hold;

/// How much is copied at once, in bytes.
const COPY_SIZE: usize = 1 << 20;

#[tonic::async_trait]
impl Blobs for Content {
    fn open(&self, namespace: &str, digest: &str) -> Result<File, Status> {
        let digest = Digest::parse(digest)?;
        let info = self.store.blob(namespace, &digest)?;
        let opened = super::open(&self.blobs.path(&digest), &digest, info.size);
        opened.map(|(file, _)| file)
    }

    fn uncompressed(&self, namespace: &str, digest: &str) -> Option<String> {
        let info = self.store.blob(namespace, &Digest::parse(digest).ok()?);
        info.ok()?.labels.remove(UNCOMPRESSED)
    }

    fn check(&self, digest: &str) -> Result<(), Status> {
        Content::check(self, &Digest::parse(digest)?)
    }

    async fn add(&self, upload: Upload, mut data: File) -> Result<(), Status> {
        let digest = Digest::parse(&upload.digest)?;
        let _held = self.gate.read().await;
        let (ingests, blobs) = (self.ingests.clone(), self.blobs.clone());
        let (namespace, size) = (upload.namespace.clone(), upload.size);
        let writer = on_disk(move || {
            let mut writer = Writer::open(&ingests, &namespace, &upload.reference, size)?;
            writer.restart()?;
            let mut buffer = vec![0; COPY_SIZE];
            loop {
                let count = data.read(&mut buffer).map_err(status::unknown)?;
                if count == 0 {
                    break;
                }
                writer.write(&buffer[..count])?;
            }
            writer.commit(&blobs, size, Some(&digest))?;
            Ok(writer)
        })
        .await?;
        let info = Info {
            size: i64::try_from(size).unwrap_or(i64::MAX),
            labels: upload.labels,
            ..Info::default()
        };
        let hold = Hold {
            lease: upload.lease,
            ingest: None,
        };
        let added = self.store.add_blob(upload.namespace, digest, info, hold);
        match added.await {
            Err(refusal) if refusal.code() != tonic::Code::AlreadyExists => return Err(refusal),
            _ => {}
        }
        on_disk(move || writer.done()).await
    }
}
