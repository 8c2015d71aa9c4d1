//! Names of images: `containerd.services.images.v1`.

use core_api::Any;

use core_api::images::images_server::Images;
use core_api::images::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse,
    ImageCreate, ImageDelete, ImageUpdate, ListImagesRequest, ListImagesResponse,
    UpdateImageRequest, UpdateImageResponse,
};
use core_api::prost::Message;
use tonic::{Request, Response, Status};

use super::{Services, namespace, required};
use crate::filter::Filters;

impl Services {
    /// Publishes an event of an image; their messages are in the package of the service.
    fn publish_image(&self, namespace: &str, topic: &str, name: &str, message: &impl Message) {
        let event = Any {
            type_url: format!("containerd.services.images.v1.{name}"),
            value: message.encode_to_vec(),
        };
        self.exchange.publish(namespace, topic, event);
    }
}

#[tonic::async_trait]
impl Images for Services {
    async fn get(
        &self,
        request: Request<GetImageRequest>,
    ) -> Result<Response<GetImageResponse>, Status> {
        let image = self
            .store
            .image(&namespace(&request)?, &request.get_ref().name)?;
        Ok(Response::new(GetImageResponse { image: Some(image) }))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        let images = self.store.images(&namespace(&request)?, &filters)?;
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn create(
        &self,
        request: Request<CreateImageRequest>,
    ) -> Result<Response<CreateImageResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let wanted = required(request.image, "image")?;
        let moment = request.source_date_epoch;
        let made = self
            .store
            .create_image(namespace.clone(), wanted, moment)
            .await?;
        self.collector.note(false);
        let event = ImageCreate {
            name: made.name.clone(),
            labels: made.labels.clone(),
        };
        self.publish_image(&namespace, "/images/create", "ImageCreate", &event);
        Ok(Response::new(CreateImageResponse { image: Some(made) }))
    }

    async fn update(
        &self,
        request: Request<UpdateImageRequest>,
    ) -> Result<Response<UpdateImageResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let wanted = required(request.image, "image")?;
        let paths = request.update_mask.unwrap_or_default().paths;
        let moment = request.source_date_epoch;
        let made = self
            .store
            .update_image(namespace.clone(), wanted, paths, moment)
            .await?;
        self.collector.note(false);
        let event = ImageUpdate {
            name: made.name.clone(),
            labels: made.labels.clone(),
        };
        self.publish_image(&namespace, "/images/update", "ImageUpdate", &event);
        Ok(Response::new(UpdateImageResponse { image: Some(made) }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let DeleteImageRequest { name, sync, target } = request.into_inner();
        self.store
            .delete_image(namespace.clone(), name.clone(), target)
            .await?;
        let event = ImageDelete { name };
        self.publish_image(&namespace, "/images/delete", "ImageDelete", &event);
        self.collector.note(true);
        if sync {
            self.collector.collect().await?;
        }
        Ok(Response::new(()))
    }
}
