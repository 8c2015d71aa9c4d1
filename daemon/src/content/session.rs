//! One upload as a client sees it: the stream of the `Write` call, message by message.
//!
//! A blob that another namespace has need not be sent again: its session begins at the end, and
//! the client, which asks how far it is before it sends anything, goes straight to the commit. Where
//! namespaces are isolated (`content_sharing_policy`) this goes for blobs of those namespaces alone
//! that are labelled as shareable; any other a client has to have to get it into its namespace.

use std::collections::BTreeMap;
use std::time::SystemTime;

use core_api::content::{Info, WriteAction, WriteContentRequest, WriteContentResponse};
use tonic::{Code, Status};

use super::digest::Digest;
use super::ingest::{Progress, Writer};
use super::{Content, on_disk};
use crate::status;
use crate::store::content::Hold;

/// An upload that a client has open.
#[derive(Debug)]
pub struct Session {
    content: Content,
    namespace: String,
    reference: String,
    lease: Option<String>,
    total: u64,
    expected: Option<Digest>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Data comes from the client.
    Upload(Box<Writer>),
    /// The blob is on disk, for another namespace.
    Shared {
        digest: Digest,
        size: u64,
        opened: SystemTime,
    },
    /// It was committed, or an operation failed that left nothing to go on with.
    Ended,
}

/// A size as clients send it; negative ones are nonsense.
fn size(value: i64, name: &str) -> Result<u64, Status> {
    u64::try_from(value)
        .map_err(|_| status::invalid(format_args!("{name} {value} must not be negative")))
}

impl Session {
    /// Opens the upload that the first message of a client names.
    ///
    /// # Errors
    /// `InvalidArgument` without a reference; `AlreadyExists` when the namespace has the blob that
    /// is expected (the lease holds it then); `Unavailable` while somebody else has the upload.
    pub async fn open(
        content: Content,
        namespace: String,
        lease: Option<String>,
        first: &WriteContentRequest,
    ) -> Result<Self, Status> {
        let reference = first.r#ref.clone();
        if reference.is_empty() {
            return Err(status::invalid("first message must have a reference"));
        }
        let mut session = Self {
            content,
            namespace,
            reference,
            lease,
            total: size(first.total, "total")?,
            expected: None,
            source: Source::Ended,
        };
        session.expect(&first.expected).await?;
        session.source = match session.shared()? {
            Some((digest, size)) => Source::Shared {
                digest,
                size,
                opened: SystemTime::now(),
            },
            None => Source::Upload(Box::new(session.writer().await?)),
        };
        // Whoever had the upload until now may have made it a blob since.
        session.refuse_known().await?;
        Ok(session)
    }

    /// The expected blob and its size in bytes, if another namespace has it to share.
    fn shared(&self) -> Result<Option<(Digest, u64)>, Status> {
        let Some(expected) = &self.expected else {
            return Ok(None);
        };
        if self.content.isolated && !self.content.store.is_shareable(expected)? {
            return Ok(None);
        }
        // A file of another size is damaged: the blob is written anew.
        if !self.content.is_whole(expected)? {
            return Ok(None);
        }
        let size = self.content.blobs.size(expected)?;
        Ok(size.map(|size| (*expected, size)))
    }

    async fn writer(&self) -> Result<Writer, Status> {
        let ingests = self.content.ingests.clone();
        let (namespace, reference) = (self.namespace.clone(), self.reference.clone());
        let total = self.total;
        // Before anything is made: a lease that is not there holds nothing.
        if let Some(lease) = self.lease.clone() {
            let (namespace, reference) = (namespace.clone(), reference.clone());
            self.content
                .store
                .hold_ingest(namespace, lease, reference)
                .await?;
        }
        on_disk(move || Writer::open(&ingests, &namespace, &reference, total)).await
    }

    /// Takes note of the digest that the client expects, if it says one.
    async fn expect(&mut self, text: &str) -> Result<(), Status> {
        if text.is_empty() {
            return Ok(());
        }
        let digest = Digest::parse(text).map_err(|refusal| match refusal.code() {
            // What cannot be stored is not what is looked for and not there.
            Code::NotFound => Status::failed_precondition(refusal.message()),
            _ => refusal,
        })?;
        if let Some(before) = self.expected
            && before != digest
        {
            return Err(status::invalid(format_args!(
                "inconsistent digest provided: {digest} != {before}"
            )));
        }
        if self.expected.is_some() {
            return Ok(());
        }
        self.expected = Some(digest);
        self.refuse_known().await
    }

    /// Ends the upload, for which nothing is to be done, if the namespace has the expected blob:
    /// that is held then.
    async fn refuse_known(&mut self) -> Result<(), Status> {
        let Some(digest) = self.expected else {
            return Ok(());
        };
        let store = &self.content.store;
        // One that is gone or cut is written anew, and its record stays with its labels.
        if store.blob(&self.namespace, &digest).is_err() || !self.content.is_whole(&digest)? {
            return Ok(());
        }
        let hold = self.hold();
        store
            .hold_blob(self.namespace.clone(), digest, hold)
            .await?;
        if let Source::Upload(writer) = std::mem::replace(&mut self.source, Source::Ended) {
            on_disk(move || writer.done()).await?;
        }
        Err(is_known(&digest))
    }

    /// Whether a message is the commit of all the data of the blob that it expects.
    fn brings(&self, request: &WriteContentRequest) -> bool {
        let (Source::Upload(writer), Ok(expected)) =
            (&self.source, Digest::parse(&request.expected))
        else {
            return false;
        };
        let at = i64::try_from(writer.progress().offset).unwrap_or(i64::MAX);
        request.action == i32::from(WriteAction::Commit)
            && self.expected.is_none_or(|before| before == expected)
            && (request.data.is_empty() || request.offset == at)
            && writer.digest_with(&request.data) == expected
    }

    fn hold(&self) -> Hold {
        Hold {
            lease: self.lease.clone(),
            ingest: Some(self.reference.clone()),
        }
    }

    /// Answers one message.
    ///
    /// # Errors
    /// `InvalidArgument` for what contradicts an earlier message, `OutOfRange` for an offset that
    /// is not the end of the data, and those of a commit.
    pub async fn answer(
        &mut self,
        request: WriteContentRequest,
    ) -> Result<WriteContentResponse, Status> {
        if self.brings(&request) {
            // Whoever sends a blob that is there already puts right what the disk has changed of it.
            self.expected = Some(Digest::parse(&request.expected)?);
        } else {
            self.expect(&request.expected).await?;
        }
        let total = size(request.total, "total")?;
        if total > 0 {
            self.total = total;
        }
        let action = WriteAction::try_from(request.action)
            .map_err(|_| status::unimplemented(format_args!("write action {}", request.action)))?;
        if action != WriteAction::Stat {
            self.write(request.offset, request.data).await?;
        }
        let mut answer = self.progress();
        if action == WriteAction::Commit {
            answer.digest = self.commit(request.labels).await?.to_string();
        }
        answer.action = action.into();
        Ok(answer)
    }

    fn progress(&self) -> WriteContentResponse {
        let (progress, digest) = match &self.source {
            Source::Upload(writer) => (writer.progress().clone(), writer.digest().to_string()),
            Source::Shared {
                digest,
                size,
                opened,
            } => {
                let progress = Progress {
                    reference: String::new(),
                    offset: *size,
                    total: *size,
                    started: *opened,
                    updated: *opened,
                };
                (progress, digest.to_string())
            }
            Source::Ended => return WriteContentResponse::default(),
        };
        WriteContentResponse {
            started_at: Some(progress.started.into()),
            updated_at: Some(progress.updated.into()),
            offset: i64::try_from(progress.offset).unwrap_or(i64::MAX),
            total: i64::try_from(self.total.max(progress.total)).unwrap_or(i64::MAX),
            digest,
            ..WriteContentResponse::default()
        }
    }

    async fn write(&mut self, offset: i64, data: Vec<u8>) -> Result<(), Status> {
        let offset = size(offset, "offset")?;
        if let Source::Shared { size, .. } = &self.source {
            if offset == *size && data.is_empty() {
                return Ok(());
            }
            // The client wants to send the blob all the same.
            self.source = Source::Upload(Box::new(self.writer().await?));
        }
        if let Source::Upload(writer) = &mut self.source
            && offset == writer.progress().offset
            && writer.keep(&data)
        {
            return Ok(());
        }
        let Source::Upload(mut writer) = std::mem::replace(&mut self.source, Source::Ended) else {
            return Err(status::precondition("the upload has ended"));
        };
        let (writer, done) = on_disk(move || {
            let at = writer.progress().offset;
            let done = if offset > 0 && offset != at {
                let text = format!("write @{offset} must occur at current offset {at}");
                Err(Status::out_of_range(format!("{text}: out of range")))
            } else if offset == 0 && at > 0 && !data.is_empty() {
                writer.restart().and_then(|()| writer.write(&data))
            } else {
                writer.write(&data)
            };
            Ok((writer, done))
        })
        .await?;
        self.source = Source::Upload(writer);
        done
    }

    async fn commit(&mut self, labels: BTreeMap<String, String>) -> Result<Digest, Status> {
        crate::ids::check_labels(&labels)?;
        let gate = self.content.gate.clone();
        let _held = gate.read().await;
        let (digest, size, writer) = match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Ended => return Err(status::precondition("the upload has ended")),
            Source::Shared { digest, .. } => {
                let (digest, size) = self.shared()?.ok_or_else(|| {
                    Status::unavailable(format!("content {digest} has just been removed"))
                })?;
                (digest, size, None)
            }
            Source::Upload(mut writer) => {
                let blobs = self.content.blobs.clone();
                let (total, expected) = (self.total, self.expected);
                let (writer, done) = on_disk(move || {
                    let done = writer.commit(&blobs, total, expected.as_ref());
                    Ok((writer, done))
                })
                .await?;
                let size = writer.progress().offset;
                let digest = match done {
                    Ok(digest) => digest,
                    Err(refusal) => {
                        self.source = Source::Upload(writer);
                        return Err(refusal);
                    }
                };
                (digest, size, Some(writer))
            }
        };
        let info = Info {
            size: i64::try_from(size).unwrap_or(i64::MAX),
            labels,
            ..Info::default()
        };
        let (namespace, hold) = (self.namespace.clone(), self.hold());
        let store = &self.content.store;
        let added = store.add_blob(namespace, digest, info, hold).await;
        if let Some(writer) = writer {
            let known = added.is_ok() || store.blob_anywhere(&digest)?.is_some();
            // An upload whose blob nobody knows stays, so that the client can try again.
            if known {
                on_disk(move || writer.done()).await?;
            }
        }
        match added {
            Err(refusal) if refusal.code() == Code::AlreadyExists && self.expected.is_some() => {
                Err(is_known(&digest))
            }
            added => added.map(|_| digest),
        }
    }
}

/// The refusal of a blob that the namespace has, in the words of containerd for one that is expected.
fn is_known(digest: &Digest) -> Status {
    Status::already_exists(format!(
        "blob with expected digest {digest} exists: already exists"
    ))
}
