//! Snapshots: `containerd.services.snapshots.v1`.

use std::pin::Pin;

use core_api::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use core_api::snapshots::snapshots_server::Snapshots;
use core_api::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Kind, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest,
    UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};
use core_api::types::Mount;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Services, batches, lease, namespace, required};
use crate::filter::Filters;
use crate::snapshot::New;
use crate::store::snapshots::Scope;

/// How many snapshots one message of a list holds.
const BATCH: usize = 100;

/// Where the snapshots of a request belong.
fn scope<T>(request: &Request<T>, snapshotter: &str) -> Result<Scope, Status> {
    Ok(Scope {
        namespace: namespace(request)?,
        snapshotter: snapshotter.to_owned(),
        lease: lease(request),
    })
}

impl Services {
    /// Makes a snapshot; of views, as with containerd, nobody is told.
    async fn make_snapshot(&self, scope: Scope, new: New) -> Result<Vec<Mount>, Status> {
        let told = new.kind == Kind::Active;
        let event = SnapshotPrepare {
            key: new.key.clone(),
            parent: new.parent.clone(),
            snapshotter: scope.snapshotter.clone(),
        };
        let namespace = scope.namespace.clone();
        let mounts = self.snapshots.create(scope, new).await?;
        if told {
            self.exchange.publish_message(
                &namespace,
                "/snapshot/prepare",
                "SnapshotPrepare",
                &event,
            );
        }
        self.collector.note(false);
        Ok(mounts)
    }
}

#[tonic::async_trait]
impl Snapshots for Services {
    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let request = request.into_inner();
        let new = New {
            key: request.key,
            parent: request.parent,
            kind: Kind::Active,
            labels: request.labels,
        };
        let mounts = self.make_snapshot(scope, new).await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let request = request.into_inner();
        let new = New {
            key: request.key,
            parent: request.parent,
            kind: Kind::View,
            labels: request.labels,
        };
        let mounts = self.make_snapshot(scope, new).await?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let mounts = self.snapshots.mounts(&scope, &request.get_ref().key)?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let CommitSnapshotRequest {
            snapshotter,
            name,
            key,
            labels,
        } = request.into_inner();
        let namespace = scope.namespace.clone();
        self.snapshots
            .commit(scope, key.clone(), name.clone(), labels)
            .await?;
        let event = SnapshotCommit {
            key,
            name,
            snapshotter,
        };
        self.exchange
            .publish_message(&namespace, "/snapshot/commit", "SnapshotCommit", &event);
        self.collector.note(false);
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let RemoveSnapshotRequest { snapshotter, key } = request.into_inner();
        let namespace = scope.namespace.clone();
        self.snapshots.remove(scope, key.clone()).await?;
        let event = SnapshotRemove { key, snapshotter };
        self.exchange
            .publish_message(&namespace, "/snapshot/remove", "SnapshotRemove", &event);
        self.collector.note(true);
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let info = Some(self.snapshots.stat(&scope, &request.get_ref().key)?);
        Ok(Response::new(StatSnapshotResponse { info }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let request = request.into_inner();
        let wanted = required(request.info, "info")?;
        let paths = request.update_mask.unwrap_or_default().paths;
        let info = Some(self.snapshots.update(scope, wanted, paths).await?);
        Ok(Response::new(UpdateSnapshotResponse { info }))
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let found = self.snapshots.list(&scope, &filters)?;
        let messages = batches(found, BATCH).map(|info| Ok(ListSnapshotsResponse { info }));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let scope = scope(&request, &request.get_ref().snapshotter)?;
        let usage = self.snapshots.usage(&scope, &request.get_ref().key).await?;
        Ok(Response::new(UsageResponse {
            size: usage.size.try_into().unwrap_or(i64::MAX),
            inodes: usage.inodes.try_into().unwrap_or(i64::MAX),
        }))
    }

    async fn cleanup(&self, request: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        namespace(&request)?;
        self.snapshots
            .cleanup(&request.get_ref().snapshotter)
            .await?;
        Ok(Response::new(()))
    }
}
