//! Blobs: `containerd.services.content.v1`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::pin::Pin;

use core_api::content::content_server::Content;
use core_api::content::{
    AbortRequest, DeleteContentRequest, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, Status as Ingest, StatusRequest, StatusResponse, UpdateRequest,
    UpdateResponse, WriteAction, WriteContentRequest, WriteContentResponse,
};
use core_api::events::{ContentCreate, ContentDelete};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Services, batches, lease, namespace, required};
use crate::content::digest::Digest;
use crate::content::ingest::Progress;
use crate::content::session::Session;
use crate::content::{on_disk, told};
use crate::filter::{Fields, Filters};
use crate::status;

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
        let namespace = namespace(&request)?;
        let digest = Digest::parse(&request.get_ref().digest)?;
        self.store.remove_blob(namespace.clone(), digest).await?;
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
        self.store.blob(&namespace, &digest)?;
        let path = self.content.blobs.path(&digest);
        let (file, path, length) = on_disk(move || {
            let opened = File::open(&path).and_then(|file| {
                let length = file.metadata()?.len();
                Ok((file, length))
            });
            match opened {
                Ok((file, length)) => Ok((file, path, length)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Err(status::not_found(format_args!(
                        "content {digest}: its file {}",
                        path.display()
                    )))
                }
                Err(error) => Err(told(&path, &error)),
            }
        })
        .await?;
        let (start, size) = wanted(request.get_ref(), length)?;
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let (mut file, mut at) = (file, start);
            while at < start + size {
                let count = READ_CHUNK.min(start + size - at);
                let path = path.clone();
                let read = on_disk(move || {
                    let mut data = vec![0; usize::try_from(count).unwrap_or(0)];
                    let read = file.read_exact_at(&mut data, at);
                    read.map_err(|error| told(&path, &error))?;
                    Ok((file, data))
                });
                let answer = match read.await {
                    Ok((same, data)) => {
                        file = same;
                        let offset = i64::try_from(at).unwrap_or(i64::MAX);
                        Ok(ReadContentResponse { offset, data })
                    }
                    Err(refusal) => {
                        let _ = answers.send(Err(refusal)).await;
                        return;
                    }
                };
                at += count;
                if answers.send(answer).await.is_err() {
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
        let namespace = namespace(&request)?;
        let reference = request.into_inner().r#ref;
        let ingests = self.content.ingests.clone();
        on_disk(move || ingests.abort(&namespace, &reference)).await?;
        Ok(Response::new(()))
    }
}
