//! Health, version, introspection, and calls of services that are not there.

use core_api::health::{HealthCheckRequest, HealthCheckResponse};
use core_api::introspection::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use core_api::version::VersionResponse;
use tokio::time::timeout;

use tonic::Code;

use crate::api::{Peer, code, told};
use crate::common::{Bed, Shims};
use crate::{Pair, Talk, Who, same_talk};

const HEALTH: &str = "grpc.health.v1.Health";
const PLUGINS: &str = "introspection.v1.Introspection/Plugins";

async fn conversation(talk: &mut Talk) {
    for service in ["", "unknown", "containerd.services.tasks.v1.Tasks"] {
        let service = service.to_owned();
        let message = HealthCheckRequest {
            service: service.clone(),
        };
        let step = format!("check {service:?}");
        let _ = talk
            .ask::<_, HealthCheckResponse>(&step, &format!("{HEALTH}/Check"), message.clone())
            .await;
        let watch = talk
            .peer
            .stream::<_, HealthCheckResponse>(&format!("{HEALTH}/Watch"), message)
            .await;
        let first = match watch {
            Ok(mut stream) => {
                let first = stream.message().await;
                let quiet = timeout(std::time::Duration::from_millis(200), stream.message());
                assert!(quiet.await.is_err(), "a watch goes on");
                first
            }
            Err(status) => Err(status),
        };
        talk.note(&format!("watch {service:?}"), &told(&first));
    }
    let nowhere = talk.peer.nowhere();
    let _ = talk
        .ask_as::<_, HealthCheckResponse>(
            &nowhere,
            "health needs no namespace",
            &format!("{HEALTH}/Check"),
            HealthCheckRequest::default(),
        )
        .await;
    let version = nowhere
        .call::<_, VersionResponse>("version.v1.Version/Version", ())
        .await;
    talk.note("version needs no namespace", &version.is_ok().to_string());
    let server = nowhere
        .call::<_, ServerResponse>("introspection.v1.Introspection/Server", ())
        .await
        .map(|server| server.uuid.len());
    talk.note("an identity", &told(&server));
    for filters in [
        &["type==io.containerd.runtime.v2"] as &[&str],
        &["id==tasks,type==io.containerd.grpc.v1"],
        &["id==leases", "id==namespaces"],
        &["id==nothing"],
        &["type~=|^io.containerd.(event|metadata)|,id==exchange"],
        &["capabilities.nothing"],
        &["capabilities"],
        &["exports.nothing"],
        &["nonsense==x"],
        &["id=="],
    ] {
        let message = PluginsRequest {
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        };
        let found = talk
            .peer
            .call::<_, PluginsResponse>(PLUGINS, message)
            .await
            .map(names);
        talk.note(&format!("plugins {filters:?}"), &told(&found));
    }
    // What clients choose by: where snapshots are, and for which platforms things work.
    for filter in [
        "type==io.containerd.snapshotter.v1,id==overlayfs",
        "type==io.containerd.snapshotter.v1,id==native",
        "type==io.containerd.snapshotter.v1,exports.root",
        "type==io.containerd.differ.v1,id==walking",
        "type==io.containerd.content.v1,id==content",
        "type==io.containerd.gc.v1",
        "type==io.containerd.runtime.v2",
    ] {
        let message = PluginsRequest {
            filters: vec![filter.to_owned()],
        };
        let found = talk.peer.call::<_, PluginsResponse>(PLUGINS, message).await;
        let told = found.map(|found| {
            let mut told: Vec<_> = found.plugins.into_iter().map(details).collect();
            told.sort();
            told
        });
        talk.note(&format!("details of {filter}"), &format!("{told:?}"));
    }
    for method in [
        "unheard.v1.Of/Call",
        "tasks.v1.Tasks/Unheard",
        "containers.v1.Containers/",
        "images.v1.Images/Unheard",
    ] {
        let _ = talk
            .ask::<_, ()>(&format!("call of {method}"), method, ())
            .await;
    }
}

/// What is told of a plugin beside what it requires, which clients have no use for. Of a
/// snapshotter that cannot work here (btrfs, zfs) nothing.
fn details(plugin: Plugin) -> String {
    if plugin.init_err.is_some() {
        return String::new();
    }
    let Plugin {
        r#type,
        id,
        platforms,
        exports,
        mut capabilities,
        ..
    } = plugin;
    capabilities.sort();
    format!("{} {id} {platforms:?} {exports:?} {capabilities:?}", r#type)
}

/// Type and id of plugins, sorted: clients look them up by name.
fn names(found: PluginsResponse) -> Vec<String> {
    let name = |plugin: Plugin| format!("{} {}", plugin.r#type, plugin.id);
    let mut names: Vec<String> = found.plugins.into_iter().map(name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_introspection_answer_as_containerds() {
    let newer = "as containerd 2 tells it";
    same_talk!(
        conversation,
        &[
            (
                "details of type==io.containerd.snapshotter.v1,id==native",
                newer
            ),
            (
                "details of type==io.containerd.snapshotter.v1,exports.root",
                newer
            ),
            (
                "details of type==io.containerd.gc.v1",
                "its thresholds are in the configuration"
            ),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_plugin_is_told_of_as_by_containerd_2() {
    let bed = Bed::new(Shims::Ours);
    let peer = Peer::connect(&bed.address(), "ns").await.nowhere();
    let ask = |kind: &str, id: &str| PluginInfoRequest {
        r#type: kind.into(),
        id: id.into(),
        options: None,
    };
    let method = "introspection.v1.Introspection/PluginInfo";
    let found = peer.call::<_, PluginInfoResponse>(method, ask("io.containerd.runtime.v2", "task"));
    let plugin = found.await.unwrap().plugin.unwrap();
    assert_eq!((plugin.id.as_str(), plugin.platforms.len()), ("task", 1));
    let none = peer.call::<_, PluginInfoResponse>(method, ask("io.containerd.runtime.v2", "none"));
    assert_eq!(code(&none.await), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plugin_is_one_that_containerd_has_too() {
    let pair = Pair::new();
    let mut lists = Vec::new();
    for who in [Who::Ours, Who::Containerd] {
        let talk = pair.talk(who).await;
        let all = talk.peer.call(PLUGINS, PluginsRequest::default()).await;
        lists.push(names(all.unwrap()));
    }
    let own = [
        "io.containerd.metadata.v1 redb",
        "io.containerd.grpc.v1 events",
    ];
    for name in &lists[0] {
        assert!(
            lists[1].contains(name) || own.contains(&name.as_str()),
            "{name} is not one of {:#?}",
            lists[1]
        );
    }
}
