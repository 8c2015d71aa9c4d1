//! Snapshots, side by side.

use core_api::FieldMask;
use core_api::leases::{
    CreateRequest, CreateResponse, ListResourcesRequest, ListResourcesResponse,
};
use core_api::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest,
    UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};

use crate::api::told;
use crate::{Talk, map, same_talk};

const SERVICE: &str = "snapshots.v1.Snapshots";
/// Keeps a snapshot from the collectors.
const ROOT: (&str, &str) = ("containerd.io/gc.root", "yes");

/// The calls of one snapshotter.
struct With<'t> {
    talk: &'t mut Talk,
    name: &'t str,
}

impl With<'_> {
    fn step(&self, step: &str) -> String {
        format!("{}: {step}", self.name)
    }

    async fn prepare(&mut self, key: &str, parent: &str, labels: &[(&str, &str)]) {
        let message = PrepareSnapshotRequest {
            snapshotter: self.name.into(),
            key: key.into(),
            parent: parent.into(),
            labels: map(labels),
        };
        let step = self.step(&format!("prepare {key:?} on {parent:?}"));
        let method = format!("{SERVICE}/Prepare");
        let _ = self
            .talk
            .ask::<_, PrepareSnapshotResponse>(&step, &method, message)
            .await;
    }

    async fn view(&mut self, key: &str, parent: &str) {
        let message = ViewSnapshotRequest {
            snapshotter: self.name.into(),
            key: key.into(),
            parent: parent.into(),
            labels: map(&[ROOT]),
        };
        let step = self.step(&format!("view {key:?} on {parent:?}"));
        let method = format!("{SERVICE}/View");
        let _ = self
            .talk
            .ask::<_, ViewSnapshotResponse>(&step, &method, message)
            .await;
    }

    async fn commit(&mut self, key: &str, name: &str, labels: &[(&str, &str)]) {
        let message = CommitSnapshotRequest {
            snapshotter: self.name.into(),
            name: name.into(),
            key: key.into(),
            labels: map(labels),
        };
        let step = self.step(&format!("commit {key:?} as {name:?}"));
        let method = format!("{SERVICE}/Commit");
        let _ = self.talk.ask::<_, ()>(&step, &method, message).await;
    }

    async fn each(&mut self, key: &str) {
        let (snapshotter, key) = (self.name.to_owned(), key.to_owned());
        let step = self.step(&format!("stat {key:?}"));
        let message = StatSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
        };
        let _ = self
            .talk
            .ask::<_, StatSnapshotResponse>(&step, &format!("{SERVICE}/Stat"), message)
            .await;
        let step = self.step(&format!("mounts of {key:?}"));
        let message = MountsRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
        };
        let _ = self
            .talk
            .ask::<_, MountsResponse>(&step, &format!("{SERVICE}/Mounts"), message)
            .await;
        let step = self.step(&format!("usage of {key:?}"));
        let message = UsageRequest { snapshotter, key };
        let _ = self
            .talk
            .ask::<_, UsageResponse>(&step, &format!("{SERVICE}/Usage"), message)
            .await;
    }

    async fn update(&mut self, key: &str, labels: &[(&str, &str)], paths: &[&str]) {
        let message = UpdateSnapshotRequest {
            snapshotter: self.name.into(),
            info: Some(Info {
                name: key.into(),
                parent: "changed".into(),
                labels: map(labels),
                ..Info::default()
            }),
            update_mask: Some(FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
        };
        let size: usize = labels.iter().map(|(_, value)| value.len()).sum();
        let step = self.step(&format!("update {paths:?} of {key:?}, {size} bytes"));
        let method = format!("{SERVICE}/Update");
        let _ = self
            .talk
            .ask::<_, UpdateSnapshotResponse>(&step, &method, message)
            .await;
    }

    async fn remove(&mut self, key: &str) {
        let message = RemoveSnapshotRequest {
            snapshotter: self.name.into(),
            key: key.into(),
        };
        let step = self.step(&format!("remove {key:?}"));
        let method = format!("{SERVICE}/Remove");
        let _ = self.talk.ask::<_, ()>(&step, &method, message).await;
    }

    async fn list(&mut self, filters: &[&str]) {
        self.list_as(&format!("list {filters:?}"), filters).await;
    }

    async fn list_as(&mut self, step: &str, filters: &[&str]) {
        let message = ListSnapshotsRequest {
            snapshotter: self.name.into(),
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        };
        let method = format!("{SERVICE}/List");
        let found = self
            .talk
            .peer
            .stream::<_, ListSnapshotsResponse>(&method, message)
            .await;
        let found = match found {
            Ok(mut stream) => {
                let mut names = Vec::new();
                loop {
                    match stream.message().await {
                        Ok(Some(some)) => names.extend(some.info.into_iter().map(|i| i.name)),
                        Ok(None) => {
                            names.sort();
                            break Ok(names);
                        }
                        Err(status) => break Err(status),
                    }
                }
            }
            Err(status) => Err(status),
        };
        let step = self.step(step);
        self.talk.note(&step, &told(&found));
    }

    async fn cleanup(&mut self) {
        let message = CleanupRequest {
            snapshotter: self.name.into(),
        };
        let step = self.step("cleanup");
        let method = format!("{SERVICE}/Cleanup");
        let _ = self.talk.ask::<_, ()>(&step, &method, message).await;
    }
}

async fn all_calls(with: &mut With<'_>) {
    let labelled = [ROOT, ("x", "y"), ("none", "")];
    with.list(&[]).await;
    with.prepare("", "", &[]).await;
    with.view("", "").await;
    with.prepare("a", "", &labelled).await;
    with.prepare("a", "", &labelled).await;
    with.view("a", "").await;
    with.prepare("b", "missing", &[ROOT]).await;
    with.prepare("b", "a", &[ROOT]).await;
    with.view("v", "missing").await;
    with.view("v", "a").await;
    with.view("empty view", "").await;
    with.commit("a", "", &[]).await;
    with.commit("", "x", &[]).await;
    with.commit("missing", "x", &[]).await;
    with.commit("empty view", "x", &[]).await;
    with.commit("a", "a", &[ROOT]).await;
    with.commit("a", "base", &[ROOT, ("c", "d")]).await;
    with.commit("base", "base", &[ROOT]).await;
    with.commit("base", "other", &[ROOT]).await;
    with.prepare("long", "", &[("k", &"v".repeat(4096))]).await;
    with.prepare("top", "base", &labelled).await;
    with.view("look", "base").await;
    with.prepare("odd name / of: anything", "base", &[ROOT])
        .await;
    for key in ["base", "top", "look", "empty view", "a", "missing", ""] {
        with.each(key).await;
    }
    for (key, labels, paths) in [
        (
            "top",
            &[("new", "1"), ("x", "z")] as &[_],
            &["labels.new"] as &[_],
        ),
        ("top", &[("new", "1")], &["labels.x"]),
        ("top", &[("new", "")], &["labels.new"]),
        ("top", &[ROOT, ("only", "this")], &["labels"]),
        ("base", &[ROOT, ("all", "new")], &[]),
        ("look", &[ROOT], &["labels.all"]),
        ("top", &[("k", "v")], &["parent"]),
        ("top", &[("k", "v")], &["kind"]),
        ("top", &[("k", "v")], &["labels.k", "name"]),
        ("top", &[("k", &"v".repeat(4096))], &["labels.k"]),
        ("missing", &[("k", "v")], &["labels.k"]),
        ("", &[("k", "v")], &["labels.k"]),
    ] {
        with.update(key, labels, paths).await;
    }
    for key in ["base", "top", "look"] {
        with.each(key).await;
    }
    for filters in [
        &[] as &[_],
        &["kind==committed"],
        &["kind==active"],
        &["kind==view"],
        &["kind~=a"],
        &["parent==base"],
        &["parent"],
        &["parent!=base"],
        &["name~=|^t|"],
        &["name==top,kind==active"],
        &["name==top", "name==look"],
        &["labels.only==this"],
        &["labels.\"containerd.io/gc.root\""],
        &["labels.nothing"],
        &["nonsense"],
        &["created_at"],
        &["name=="],
    ] {
        with.list(filters).await;
    }
    for key in ["base", "missing", "", "look", "top"] {
        with.remove(key).await;
    }
    with.remove("odd name / of: anything").await;
    with.remove("base").await;
    with.remove("empty view").await;
    with.list(&[]).await;
}

async fn resources(talk: &mut Talk, step: &str) {
    let message = ListResourcesRequest { id: "l".into() };
    let _ = talk
        .ask::<_, ListResourcesResponse>(step, "leases.v1.Leases/ListResources", message)
        .await;
}

async fn conversation(talk: &mut Talk) {
    for name in ["overlayfs", "native"] {
        all_calls(&mut With { talk, name }).await;
    }
    for name in ["unheard", ""] {
        let mut with = With { talk, name };
        with.prepare("a", "", &[]).await;
        with.view("a", "b").await;
        with.commit("a", "b", &[]).await;
        with.each("a").await;
        with.update("a", &[("k", "v")], &[]).await;
        with.list(&[]).await;
        with.remove("a").await;
        with.cleanup().await;
    }
    With {
        talk,
        name: "overlayfs",
    }
    .cleanup()
    .await;
    // What is made under a lease it holds, under the name that it has.
    let lease = CreateRequest {
        id: "l".into(),
        ..CreateRequest::default()
    };
    let made = talk
        .peer
        .call::<_, CreateResponse>("leases.v1.Leases/Create", lease);
    made.await.unwrap();
    let peer = talk.peer.clone();
    talk.peer = peer.under("l");
    let mut with = With {
        talk,
        name: "overlayfs",
    };
    with.prepare("held", "", &[]).await;
    with.view("held view", "").await;
    resources(with.talk, "held after prepare").await;
    with.commit("held", "held base", &[]).await;
    resources(with.talk, "held after commit").await;
    with.remove("held view").await;
    resources(with.talk, "held after remove").await;
    with.talk.peer = peer.under("unheard");
    with.prepare("of no lease", "", &[]).await;
    with.view("of no lease", "held base").await;
    with.talk.peer = peer.nowhere();
    with.list_as("list nowhere", &[]).await;
    with.prepare("nowhere", "", &[]).await;
    with.talk.peer = peer.of("elsewhere");
    with.list(&[]).await;
    with.each("held base").await;
    with.prepare("elsewhere", "held base", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_answer_as_containerds() {
    let named = "what has no name is a bad argument, not a fault of the database";
    let code = "a bad filter is a bad argument everywhere; containerd loses that here";
    same_talk!(
        conversation,
        &[
            ("overlayfs: prepare \"\" on \"\"", named),
            ("overlayfs: view \"\" on \"\"", named),
            ("overlayfs: commit \"a\" as \"\"", named),
            ("overlayfs: list [\"name==\"]", code),
            ("native: prepare \"\" on \"\"", named),
            ("native: view \"\" on \"\"", named),
            ("native: commit \"a\" as \"\"", named),
            ("native: list [\"name==\"]", code),
            ("overlayfs: cleanup", "ours has something to clean up"),
            (
                "overlayfs: list nowhere",
                "containerd loses the code of this, too"
            ),
        ]
    );
}
