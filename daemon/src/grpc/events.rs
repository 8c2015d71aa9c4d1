//! Events: `containerd.services.events.v1`, and the ttrpc service of the same purpose, by which
//! shims forward theirs.

use containerd_shim_protos::ttrpc;
use core_api::events_service::events_server::Events;
use core_api::events_service::{Envelope, ForwardRequest, PublishRequest, SubscribeRequest};
use task_api::events::ForwardRequest as ForwardEvent;
use task_api::status::Refusal;
use tonic::{Request, Response, Status};

use super::{Services, namespace, required};
use crate::exchange::Subscription;
use crate::filter::Filters;
use crate::ttrpc::server::Receiver;
use crate::{convert, ids};

#[tonic::async_trait]
impl Events for Services {
    type SubscribeStream = Subscription;

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let PublishRequest { topic, event } = request.into_inner();
        ids::check_topic(&topic)?;
        let event = required(event, "event")?;
        self.exchange.publish(&namespace, &topic, event);
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = required(request.into_inner().envelope, "envelope")?;
        self.manager.forward(envelope)?;
        Ok(Response::new(()))
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        Ok(Response::new(self.exchange.subscribe(filters)))
    }
}

impl Receiver for Services {
    fn receive(&self, request: ForwardEvent) -> ttrpc::Result<()> {
        let Some(envelope) = request.envelope.into_option() else {
            return Err(Refusal::invalid_argument("envelope must be set").into());
        };
        let envelope = Envelope {
            timestamp: convert::timestamp(envelope.timestamp),
            namespace: envelope.namespace,
            topic: envelope.topic,
            event: convert::any(envelope.event),
        };
        self.manager
            .forward(envelope)
            .map_err(|refusal| Refusal::invalid_argument(refusal.message()).into())
    }
}
