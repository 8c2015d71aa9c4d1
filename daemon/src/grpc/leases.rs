//! Leases: `containerd.services.leases.v1`.

use std::time::{SystemTime, UNIX_EPOCH};

use core_api::leases::leases_server::Leases;
use core_api::leases::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest, Lease,
    ListRequest, ListResourcesRequest, ListResourcesResponse, ListResponse,
};
use tonic::{Request, Response, Status};

use super::{Services, namespace, required};
use crate::filter::Filters;

/// An id for a client that gave none: the moment it asked, which nobody asks twice.
fn fresh_id() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}-{:09}", now.as_secs(), now.subsec_nanos())
}

#[tonic::async_trait]
impl Leases for Services {
    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let namespace = namespace(&request)?;
        let CreateRequest { id, labels } = request.into_inner();
        let id = if id.is_empty() { fresh_id() } else { id };
        let lease = Lease {
            id,
            created_at: None,
            labels,
        };
        let lease = Some(self.store.create_lease(namespace, lease).await?);
        Ok(Response::new(CreateResponse { lease }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let DeleteRequest { id, sync } = request.into_inner();
        self.store.delete_lease(namespace, id).await?;
        self.collector.note(true);
        if sync {
            self.collector.collect().await?;
        }
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        let leases = self.store.leases(&namespace(&request)?, &filters)?;
        Ok(Response::new(ListResponse { leases }))
    }

    async fn add_resource(
        &self,
        request: Request<AddResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let AddResourceRequest { id, resource } = request.into_inner();
        let resource = required(resource, "resource")?;
        self.store.hold(namespace, id, resource, true).await?;
        Ok(Response::new(()))
    }

    async fn delete_resource(
        &self,
        request: Request<DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let DeleteResourceRequest { id, resource } = request.into_inner();
        let resource = required(resource, "resource")?;
        self.store.hold(namespace, id, resource, false).await?;
        Ok(Response::new(()))
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let resources = self
            .store
            .held(&namespace(&request)?, &request.get_ref().id)?;
        Ok(Response::new(ListResourcesResponse { resources }))
    }
}
