//! Writing a blob: begun under a name that only one writer has at a time, gone on with where an
//! earlier one stopped, and committed by its digest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use core_api::content::{
    AbortRequest, StatusRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use oci_spec::image::{Descriptor, Digest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::content;
use super::manifest::{Kind, kind};
use crate::connection::Connection;
use crate::error::{Error, Result};

/// How many bytes are best sent at once.
pub(crate) const CHUNK: usize = 1 << 20;
/// How many writes may be without an answer: the daemon never idles, and little is in memory.
const WINDOW: usize = 4;
/// How often it is looked whether another writer is done.
const LOOK: Duration = Duration::from_millis(100);
/// How long another writer may write nothing.
const STALLED: Duration = Duration::from_secs(60);

/// The name of the upload of a blob, the one that containerd's clients use, so that they and we do
/// not both load the same.
pub(crate) fn reference(descriptor: &Descriptor) -> String {
    let kind = match kind(descriptor.media_type()) {
        Kind::Index => "index",
        Kind::Manifest => "manifest",
        Kind::Config => "config",
        Kind::Layer | Kind::ForeignLayer => "layer",
        Kind::Other => "unknown",
    };
    format!("{kind}-{}", descriptor.digest())
}

/// What is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Name of the upload.
    pub(crate) reference: String,
    /// What the blob's digest must be, if that is known before it is read.
    pub(crate) digest: Option<Digest>,
    /// Its size in bytes, 0 if it is not known.
    pub(crate) size: u64,
}

impl Wanted {
    /// The blob that a descriptor names.
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        Self {
            reference: reference(descriptor),
            digest: Some(descriptor.digest().clone()),
            size: descriptor.size(),
        }
    }

    fn expected(&self) -> String {
        self.digest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    fn name(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.reference.clone(),
        }
    }

    fn total(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX)
    }
}

/// What the daemon said to the wish to write.
#[expect(
    clippy::large_enum_variant,
    reason = "there are few at a time, and none is kept"
)]
#[derive(Debug)]
pub(crate) enum Opened {
    /// The blob is there; a lease keeps it now.
    There,
    /// It can be written.
    Upload(Upload),
}

/// A blob that is being written.
#[derive(Debug)]
pub(crate) struct Upload {
    connection: Connection,
    wanted: Wanted,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    offset: u64,
    unanswered: usize,
}

/// Begins to write a blob, or goes on; waits while somebody else writes it.
///
/// # Errors
/// The daemon's refusal, or the other writer is stuck.
pub(crate) async fn open(connection: &Connection, wanted: Wanted) -> Result<Opened> {
    open_telling(connection, wanted, |_| ()).await
}

/// As [`open`]; `waiting` is told how many bytes the other writer has, as often as it is looked.
///
/// # Errors
/// As [`open`].
pub(crate) async fn open_telling(
    connection: &Connection,
    wanted: Wanted,
    mut waiting: impl FnMut(u64),
) -> Result<Opened> {
    let mut seen = (None, Instant::now());
    loop {
        match attempt(connection, &wanted).await {
            Ok(upload) => return Ok(Opened::Upload(upload)),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(Opened::There),
            Err(status) if is_taken(&status) => {
                let progress = progress(connection, &wanted.reference).await;
                waiting(
                    progress
                        .and_then(|at| u64::try_from(at).ok())
                        .unwrap_or_default(),
                );
                if progress != seen.0 {
                    seen = (progress, Instant::now());
                } else if seen.1.elapsed() > STALLED {
                    let name = wanted.name();
                    let seconds = STALLED.as_secs();
                    return Err(Error::said(format!(
                        "{name}: somebody else is writing it, and has not gone on for {seconds} s"
                    )));
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(status) => {
                return Err(Error::refused(
                    format!("cannot write {}", wanted.name()),
                    status,
                ));
            }
        }
    }
}

/// Whether another client has the name. A daemon that is gone has the same code, but then the
/// error is of our own making and has a cause.
fn is_taken(status: &Status) -> bool {
    status.code() == Code::Unavailable && std::error::Error::source(status).is_none()
}

async fn progress(connection: &Connection, reference: &str) -> Option<i64> {
    let r#ref = reference.to_owned();
    let answer = connection.content().status(StatusRequest { r#ref }).await;
    answer.ok()?.into_inner().status.map(|status| status.offset)
}

async fn attempt(connection: &Connection, wanted: &Wanted) -> std::result::Result<Upload, Status> {
    let (requests, receiver) = mpsc::channel(WINDOW + 1);
    let first = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: wanted.reference.clone(),
        total: wanted.total(),
        expected: wanted.expected(),
        ..WriteContentRequest::default()
    };
    // There is room: nothing was sent yet.
    let _ = requests.try_send(first);
    let answered = connection
        .content()
        .write(ReceiverStream::new(receiver))
        .await?;
    let mut answers = answered.into_inner();
    let stat = answers.message().await?;
    let stat = stat.ok_or_else(|| Status::unknown("the daemon ended the upload"))?;
    Ok(Upload {
        connection: connection.clone(),
        wanted: wanted.clone(),
        requests,
        answers,
        offset: u64::try_from(stat.offset).unwrap_or_default(),
        unanswered: 0,
    })
}

impl Upload {
    /// How many bytes the daemon has, or has been sent: the next ones follow them.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes the next bytes; best [`CHUNK`] of them.
    ///
    /// # Errors
    /// The daemon's.
    pub(crate) async fn write(&mut self, data: Vec<u8>) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        while self.unanswered >= WINDOW {
            self.answer().await?;
        }
        let length = data.len() as u64;
        self.send(WriteAction::Write, data, BTreeMap::new()).await?;
        self.offset += length;
        Ok(())
    }

    /// Says what its digest is to be, where that was not known when it was begun.
    pub(crate) fn expect(&mut self, digest: Digest) {
        self.wanted.digest = Some(digest);
    }

    /// Makes it a blob with these labels; answers its digest. Where another writer was first, its
    /// blob gets them.
    ///
    /// # Errors
    /// The daemon's: the digest or the size is another than was said, for one.
    pub(crate) async fn commit(mut self, labels: BTreeMap<String, String>) -> Result<Digest> {
        while self.unanswered > 0 {
            self.answer().await?;
        }
        self.send(WriteAction::Commit, Vec::new(), labels.clone())
            .await?;
        let committed = self.answers.message().await;
        match (committed, &self.wanted.digest) {
            (Ok(Some(done)), _) => Digest::try_from(done.digest.as_str()).map_err(|_| {
                Error::said(format!(
                    "{}: the daemon answered no digest",
                    self.wanted.name()
                ))
            }),
            (Err(status), Some(digest)) if status.code() == Code::AlreadyExists => {
                content::set_labels(&self.connection, digest, labels).await?;
                Ok(digest.clone())
            }
            (Err(status), _) => Err(self.refusal(status)),
            (Ok(None), _) => Err(self.refusal(Status::unknown("the daemon ended the upload"))),
        }
    }

    async fn send(
        &mut self,
        action: WriteAction,
        data: Vec<u8>,
        labels: BTreeMap<String, String>,
    ) -> Result<()> {
        let request = WriteContentRequest {
            action: action.into(),
            r#ref: self.wanted.reference.clone(),
            total: self.wanted.total(),
            expected: self.wanted.expected(),
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            data,
            labels,
        };
        if self.requests.send(request).await.is_err() {
            // The call is over; its answers say why.
            while self.answer().await.is_ok() {}
            return self.answer().await;
        }
        if action == WriteAction::Write {
            self.unanswered += 1;
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<()> {
        match self.answers.message().await {
            Ok(Some(_)) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                Ok(())
            }
            Ok(None) => Err(self.refusal(Status::unknown("the daemon ended the upload"))),
            Err(status) => Err(self.refusal(status)),
        }
    }

    fn refusal(&self, status: Status) -> Error {
        Error::refused(format!("cannot write {}", self.wanted.name()), status)
    }
}

/// Throws away what was written under a name; that there is nothing is fine.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn forget(connection: &Connection, reference: &str) -> Result<()> {
    let r#ref = reference.to_owned();
    match connection.content().abort(AbortRequest { r#ref }).await {
        Err(status) if status.code() != Code::NotFound => Err(Error::refused(
            format!("cannot give up {reference}"),
            status,
        )),
        _ => Ok(()),
    }
}

/// Writes a blob whose bytes are here, with labels.
///
/// # Errors
/// As [`open`], [`Upload::write`] and [`Upload::commit`].
pub(crate) async fn put(
    connection: &Connection,
    descriptor: &Descriptor,
    bytes: &[u8],
    labels: BTreeMap<String, String>,
) -> Result<()> {
    let upload = open(connection, Wanted::of(descriptor)).await?;
    let Opened::Upload(mut upload) = upload else {
        return content::set_labels(connection, descriptor.digest(), labels).await;
    };
    let done = usize::try_from(upload.offset()).unwrap_or(usize::MAX);
    let rest = bytes.get(done..).unwrap_or_default();
    for chunk in rest.chunks(CHUNK) {
        upload.write(chunk.to_vec()).await?;
    }
    upload.commit(labels).await.map(drop)
}
