//! Layers: `containerd.services.diff.v1`.

use core_api::diff::diff_server::Diff;
use core_api::diff::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse};
use tonic::{Request, Response, Status};

use super::{Services, lease, namespace, required};
use crate::diff::Wanted;
use crate::unpack;

#[tonic::async_trait]
impl Diff for Services {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let namespace = namespace(&request)?;
        let ApplyRequest {
            diff,
            mounts,
            sync_fs,
            ..
        } = request.into_inner();
        let layer = required(diff, "diff")?;
        let wanted = unpack::Wanted {
            layer,
            mounts,
            sync: sync_fs,
        };
        let applied = self.unpacker.apply(&namespace, wanted).await?;
        Ok(Response::new(ApplyResponse {
            applied: Some(applied),
        }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let namespace = namespace(&request)?;
        let lease = lease(&request);
        let DiffRequest {
            left,
            right,
            media_type,
            r#ref,
            labels,
            source_date_epoch,
        } = request.into_inner();
        let wanted = Wanted {
            media_type,
            reference: r#ref,
            labels,
            latest: source_date_epoch.map(|time| time.seconds),
        };
        let diff = self
            .differ
            .diff(namespace, lease, left, right, wanted)
            .await?;
        Ok(Response::new(DiffResponse { diff: Some(diff) }))
    }
}
