//! Figures of every container: their shims are asked at once, each for a bounded time.

use std::collections::BTreeMap;
use std::sync::Arc;

use containerd_shim_protos::cgroups::metrics::Metrics as MetricsV1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as MetricsV2;
use protobuf::Message;
use task_api::options::type_name;
use task_api::task::{Any, METRICS_V1, METRICS_V2, StatsRequest, StatsResponse};
use tokio::task::JoinSet;

use super::text::Text;
use super::{v1, v2};
use crate::grpc::Services;
use crate::shim::task::{STATE_LIMIT, Task};

/// What is known of one container.
struct Known {
    namespace: String,
    id: String,
    runtime: String,
    stats: Any,
}

/// Samples by the family they belong to: a family must be written in one piece.
type Families = BTreeMap<String, Vec<(Vec<(String, String)>, u64)>>;

/// Takes the samples of one container.
pub(super) struct Samples<'a> {
    families: &'a mut Families,
    of: &'a Known,
}

impl Samples<'_> {
    /// Takes the sample `container_NAME`.
    pub(super) fn add(&mut self, name: &str, value: u64) {
        self.add_of(name, &[], value);
    }

    /// Takes the sample `container_NAME` with more labels.
    pub(super) fn add_of(&mut self, name: &str, more: &[(&str, &str)], value: u64) {
        let own = [
            ("container_id", self.of.id.as_str()),
            ("namespace", &self.of.namespace),
            ("runtime", &self.of.runtime),
        ];
        let labels = own.iter().chain(more);
        let labels = labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.families
            .entry(format!("container_{name}"))
            .or_default()
            .push((labels.collect(), value));
    }
}

async fn ask(services: Services, task: Arc<Task>) -> Option<Known> {
    let request = StatsRequest {
        id: task.id().to_owned(),
        ..StatsRequest::default()
    };
    let answer = task
        .call::<_, StatsResponse>("Stats", &request, Some(STATE_LIMIT))
        .await
        .inspect_err(|refusal| log::debug!("metrics of {}: {}", task.id(), refusal.message()))
        .ok()?;
    let record = services.store.container(&task.bundle.namespace, task.id());
    let runtime = record.ok().and_then(|record| record.runtime);
    Some(Known {
        namespace: task.bundle.namespace.clone(),
        id: task.id().to_owned(),
        runtime: runtime.map(|runtime| runtime.name).unwrap_or_default(),
        stats: answer.stats.into_option()?,
    })
}

/// Writes the figures of every task that answers in time.
pub(super) async fn write(services: &Services, text: &mut Text) {
    let mut asked = JoinSet::new();
    for entry in services.manager.table() {
        if let Some(task) = entry.task {
            asked.spawn(ask(services.clone(), task));
        }
    }
    let mut known: Vec<Known> = asked.join_all().await.into_iter().flatten().collect();
    known.sort_by(|a, b| (&a.namespace, &a.id).cmp(&(&b.namespace, &b.id)));
    let mut families = Families::new();
    for of in &known {
        let mut samples = Samples {
            families: &mut families,
            of,
        };
        match type_name(&of.stats.type_url) {
            METRICS_V1 => {
                if let Ok(metrics) = MetricsV1::parse_from_bytes(&of.stats.value) {
                    v1::write(&mut samples, &metrics);
                }
            }
            METRICS_V2 => {
                if let Ok(metrics) = MetricsV2::parse_from_bytes(&of.stats.value) {
                    v2::write(&mut samples, &metrics);
                }
            }
            // A shim of another kind of container; its figures are in `Tasks.Metrics`.
            _ => {}
        }
    }
    for (name, samples) in &families {
        let help = name.trim_start_matches("container_").replace('_', " ");
        let mut family = text.family(name, "gauge", &format!("The cgroup's {help}."));
        for (labels, value) in samples {
            let labels: Vec<(&str, &str)> = labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            family.sample(&labels, value);
        }
    }
}
