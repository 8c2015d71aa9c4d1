//! Blobs: `containerd.services.content.v1`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;

use core_api::content::content_server::Content;
use core_api::content::{
    AbortRequest, DeleteContentRequest, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, Status as Ingest, StatusRequest, StatusResponse, UpdateRequest,
    UpdateResponse, WriteAction, WriteContentRequest, WriteContentResponse,
};
use core_api::events::{ContentCreate, ContentDelete};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Services, batches, lease, namespace, required};
use crate::content::digest::Digest;
use crate::content::ingest::Progress;
use crate::content::session::Session;
use crate::content::{self, damaged, on_disk, told};
use crate::filter::{Fields, Filters};

/// How many blobs one message of a list tells of.
const LIST_CHUNK: usize = 100;
/// How much of a blob one message carries, in bytes.
const READ_CHUNK: u64 = 1 << 20;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fields for Progress {
    fn field(&self, path: &[String]) -> Option<std::borrow::Cow<'_, str>> {
        (path == ["ref"]).then(|| self.reference.as_str().into())
    }
}

fn ingest(progress: Progress) -> Ingest {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Ingest {
        started_at: Some(progress.started.into()),
        updated_at: Some(progress.updated.into()),
        r#ref: progress.reference,
        offset: number(progress.offset),
        total: number(progress.total),
        expected: String::new(),
    }
}

/// What of a blob of `length` bytes a client wants: from where, how much.
fn wanted(request: &ReadContentRequest, length: u64) -> Result<(u64, u64), Status> {
    let offset = u64::try_from(request.offset).unwrap_or(0);
    let size = match u64::try_from(request.size) {
        Ok(0) | Err(_) => length.saturating_sub(offset),
        Ok(size) => size,
    };
    if offset > length {
        let text = format!("read past object length {length} bytes: out of range");
        return Err(Status::out_of_range(text));
    }
    Ok((offset, size.min(length - offset)))
}

/// A blob, or a part of it, on its way to a client.
struct Reading {
    file: File,
    path: PathBuf,
    at: u64,
    end: u64,
    /// The hash of what was read, where all of it is.
    hash: Option<Sha256>,
}

impl Reading {
    /// The next piece of the blob `digest`.
    fn next(&mut self, digest: &Digest) -> Result<ReadContentResponse, Status> {
        let count = READ_CHUNK.min(self.end - self.at);
        let mut data = vec![0; usize::try_from(count).unwrap_or(0)];
        let read = self.file.read_exact_at(&mut data, self.at);
        read.map_err(|error| damaged(digest, told(&self.path, &error).message()))?;
        let offset = i64::try_from(self.at).unwrap_or(i64::MAX);
        self.at += count;
        if let Some(hash) = &mut self.hash {
            hash.update(&data);
            if self.at == self.end && Digest::of(hash) != *digest {
                let found = Digest::of(hash);
                let what = format!("the bytes of {} are those of {found}", self.path.display());
                return Err(damaged(digest, what));
            }
        }
        Ok(ReadContentResponse { offset, data })
    }
}

impl Services {
    /// Answers the messages of one `Write` call until its end.
    async fn write_stream(
        &self,
        namespace: String,
        lease: Option<String>,
        mut requests: Streaming<WriteContentRequest>,
        answers: &mpsc::Sender<Result<WriteContentResponse, Status>>,
    ) -> Result<(), Status> {
        let Some(first) = requests.message().await? else {
            return Err(Status::unknown("the stream ended before its first message"));
        };
        let content = self.content.clone();
        let mut session = Session::open(content, namespace.clone(), lease, &first).await?;
        let mut next = Some(first);
        while let Some(request) = next {
            let answer = session.answer(request).await?;
            let committed = answer.action == i32::from(WriteAction::Commit);
            if committed {
                self.collector.note(false);
                let event = ContentCreate {
                    digest: answer.digest.clone(),
                    size: answer.offset,
                };
                self.exchange.publish_message(
                    &namespace,
                    "/content/create",
                    "ContentCreate",
                    &event,
                );
            }
            if answers.send(Ok(answer)).await.is_err() || committed {
                return Ok(());
            }
            next = requests.message().await?;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Content for Services {
    type ListStream = Answers<ListContentResponse>;
    type ReadStream = Answers<ReadContentResponse>;
    type WriteStream = Answers<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let namespace = namespace(&request)?;
        let digest = Digest::parse(&request.get_ref().digest)?;
        let info = Some(self.store.blob(&namespace, &digest)?);
        Ok(Response::new(InfoResponse { info }))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        let namespace = namespace(&request)?;
        let UpdateRequest { info, update_mask } = request.into_inner();
        let wanted = required(info, "info")?;
        let digest = Digest::parse(&wanted.digest)?;
        let paths = update_mask.unwrap_or_default().paths;
        let info = self
            .store
            .update_blob(namespace, digest, wanted, paths)
            .await?;
        Ok(Response::new(UpdateResponse { info: Some(info) }))
    }

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        let found = self.store.blobs(&namespace(&request)?, &filters)?;
        let messages = batches(found, LIST_CHUNK).map(|info| Ok(ListContentResponse { info }));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        let (namespace, lease) = (namespace(&request)?, lease(&request));
        let digest = Digest::parse(&request.get_ref().digest)?;
        self.store
            .remove_blob(namespace.clone(), digest, lease)
            .await?;
        self.collector.note(true);
        let event = ContentDelete {
            digest: digest.to_string(),
        };
        self.exchange
            .publish_message(&namespace, "/content/delete", "ContentDelete", &event);
        Ok(Response::new(()))
    }

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let namespace = namespace(&request)?;
        let digest = Digest::parse(&request.get_ref().digest)?;
        let info = self.store.blob(&namespace, &digest)?;
        let path = self.content.blobs.path(&digest);
        let opened = path.clone();
        let (file, length) = on_disk(move || content::open(&opened, &digest, info.size)).await?;
        let (start, size) = wanted(request.get_ref(), length)?;
        let (answers, stream) = mpsc::channel(1);
        let whole = start == 0 && size == length;
        tokio::spawn(async move {
            // Who reads all of a blob is not given the last of it if it is not what it should be.
            let mut reading = Reading {
                file,
                path,
                at: start,
                end: start + size,
                hash: whole.then(Sha256::new),
            };
            while reading.at < reading.end {
                let read = on_disk(move || {
                    let answer = reading.next(&digest)?;
                    Ok((reading, answer))
                });
                let answer = match read.await {
                    Ok((same, answer)) => {
                        reading = same;
                        answer
                    }
                    Err(refusal) => {
                        let _ = answers.send(Err(refusal)).await;
                        return;
                    }
                };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let namespace = namespace(&request)?;
        let reference = request.into_inner().r#ref;
        let ingests = self.content.ingests.clone();
        let progress = on_disk(move || ingests.progress(&namespace, &reference)).await?;
        Ok(Response::new(StatusResponse {
            status: Some(ingest(progress)),
        }))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        let namespace = namespace(&request)?;
        let filters = Filters::parse(&request.get_ref().filters)?;
        let ingests = self.content.ingests.clone();
        let found = on_disk(move || ingests.list(Some(&namespace))).await?;
        let statuses = found
            .into_iter()
            .map(|(_, progress)| progress)
            .filter(|progress| filters.hold(progress))
            .map(ingest)
            .collect();
        Ok(Response::new(ListStatusesResponse { statuses }))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let (namespace, lease) = (namespace(&request)?, lease(&request));
        let (answers, stream) = mpsc::channel(1);
        let services = self.clone();
        tokio::spawn(async move {
            let requests = request.into_inner();
            let done = services.write_stream(namespace, lease, requests, &answers);
            if let Err(refusal) = done.await {
                let _ = answers.send(Err(refusal)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        let (namespace, lease) = (namespace(&request)?, lease(&request));
        let reference = request.into_inner().r#ref;
        let ingests = self.content.ingests.clone();
        let (owner, name) = (namespace.clone(), reference.clone());
        on_disk(move || ingests.abort(&owner, &name)).await?;
        if let Some(lease) = lease {
            self.store
                .let_ingest_go(namespace, lease, reference)
                .await?;
        }
        Ok(Response::new(()))
    }
}
