//! Namespaces: `containerd.services.namespaces.v1`.
//!
//! As with containerd, that one was made or changed is told in the namespace of the request, if it
//! names one, and that it was deleted in itself.

use core_api::events::{NamespaceCreate, NamespaceDelete, NamespaceUpdate};
use core_api::namespaces::namespaces_server::Namespaces;
use core_api::namespaces::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest,
    GetNamespaceResponse, ListNamespacesRequest, ListNamespacesResponse, Namespace,
    UpdateNamespaceRequest, UpdateNamespaceResponse,
};
use tonic::{Request, Response, Status};

use super::{Services, namespace, required};

/// The label by which clients choose a snapshotter that nobody named.
const DEFAULT_SNAPSHOTTER: &str = "containerd.io/defaults/snapshotter";

impl Services {
    /// Where overlays cannot work, every namespace says so: clients then choose what can. This is
    /// never stored, so that it ends when the cause does; a label that somebody set stays.
    fn tell_default_snapshotter(&self, namespace: &mut Namespace) {
        if !namespace.labels.contains_key(DEFAULT_SNAPSHOTTER)
            && let Some(name) = self.snapshots.fallback()
        {
            namespace
                .labels
                .insert(DEFAULT_SNAPSHOTTER.to_owned(), name.to_owned());
        }
    }
}

#[tonic::async_trait]
impl Namespaces for Services {
    async fn get(
        &self,
        request: Request<GetNamespaceRequest>,
    ) -> Result<Response<GetNamespaceResponse>, Status> {
        let mut namespace = self.store.namespace(&request.get_ref().name)?;
        self.tell_default_snapshotter(&mut namespace);
        let namespace = Some(namespace);
        Ok(Response::new(GetNamespaceResponse { namespace }))
    }

    async fn list(
        &self,
        _: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        let mut namespaces = self.store.namespaces()?;
        for namespace in &mut namespaces {
            self.tell_default_snapshotter(namespace);
        }
        Ok(Response::new(ListNamespacesResponse { namespaces }))
    }

    async fn create(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Result<Response<CreateNamespaceResponse>, Status> {
        let told_in = namespace(&request);
        let wanted = required(request.into_inner().namespace, "namespace")?;
        let made = self.store.create_namespace(wanted).await?;
        let event = NamespaceCreate {
            name: made.name.clone(),
            labels: made.labels.clone(),
        };
        let told_in = told_in.as_ref().unwrap_or(&made.name);
        self.exchange
            .publish_message(told_in, "/namespaces/create", "NamespaceCreate", &event);
        Ok(Response::new(CreateNamespaceResponse {
            namespace: Some(made),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        let told_in = namespace(&request);
        let request = request.into_inner();
        let wanted = required(request.namespace, "namespace")?;
        let paths = request.update_mask.unwrap_or_default().paths;
        let made = self.store.update_namespace(wanted, paths).await?;
        let event = NamespaceUpdate {
            name: made.name.clone(),
            labels: made.labels.clone(),
        };
        let told_in = told_in.as_ref().unwrap_or(&made.name);
        self.exchange
            .publish_message(told_in, "/namespaces/update", "NamespaceUpdate", &event);
        Ok(Response::new(UpdateNamespaceResponse {
            namespace: Some(made),
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteNamespaceRequest>,
    ) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        self.store.delete_namespace(name.clone()).await?;
        let event = NamespaceDelete { name: name.clone() };
        self.exchange
            .publish_message(&name, "/namespaces/delete", "NamespaceDelete", &event);
        Ok(Response::new(()))
    }
}
