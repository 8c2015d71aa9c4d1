//! Records of containers: `containerd.services.containers.v1`.

use std::pin::Pin;

use core_api::containers::containers_server::Containers;
use core_api::containers::{
    CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, GetContainerRequest,
    GetContainerResponse, ListContainerMessage, ListContainersRequest, ListContainersResponse,
    UpdateContainerRequest, UpdateContainerResponse,
};
use core_api::events::{ContainerCreate, ContainerDelete, ContainerUpdate, container_create};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Services, namespace, required};
use crate::filter::Filters;

#[tonic::async_trait]
impl Containers for Services {
    type ListStreamStream =
        Pin<Box<dyn Stream<Item = Result<ListContainerMessage, Status>> + Send>>;

    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let container = self
            .store
            .container(&namespace(&request)?, &request.get_ref().id)?;
        Ok(Response::new(GetContainerResponse {
            container: Some(container),
        }))
    }

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        let containers = self.store.containers(&namespace(&request)?, &filters)?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        let containers = self.store.containers(&namespace(&request)?, &filters)?;
        let messages = containers.into_iter().map(|container| {
            Ok(ListContainerMessage {
                container: Some(container),
            })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let namespace = namespace(&request)?;
        let wanted = required(request.into_inner().container, "container")?;
        let made = self
            .store
            .create_container(namespace.clone(), wanted)
            .await?;
        let runtime = made
            .runtime
            .clone()
            .map(|runtime| container_create::Runtime {
                name: runtime.name,
                options: runtime.options,
            });
        let event = ContainerCreate {
            id: made.id.clone(),
            image: made.image.clone(),
            runtime,
        };
        self.exchange
            .publish_message(&namespace, "/containers/create", "ContainerCreate", &event);
        Ok(Response::new(CreateContainerResponse {
            container: Some(made),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Result<Response<UpdateContainerResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let wanted = required(request.container, "container")?;
        let paths = request.update_mask.unwrap_or_default().paths;
        let made = self
            .store
            .update_container(namespace.clone(), wanted, paths)
            .await?;
        let event = ContainerUpdate {
            id: made.id.clone(),
            image: made.image.clone(),
            labels: made.labels.clone(),
            snapshot_key: made.snapshot_key.clone(),
        };
        self.exchange
            .publish_message(&namespace, "/containers/update", "ContainerUpdate", &event);
        Ok(Response::new(UpdateContainerResponse {
            container: Some(made),
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteContainerRequest>,
    ) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let id = request.into_inner().id;
        self.store
            .delete_container(namespace.clone(), id.clone())
            .await?;
        self.collector.note(true);
        let event = ContainerDelete { id };
        self.exchange
            .publish_message(&namespace, "/containers/delete", "ContainerDelete", &event);
        Ok(Response::new(()))
    }
}
