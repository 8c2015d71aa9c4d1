//! The daemon is killed again and again under load, and nothing that it has acknowledged is lost:
//! no record, no lease, no label, no exit. 20 s; five minutes with `WHERRY_SLOW=1`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;
#[path = "storm/runner.rs"]
mod runner;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::Peer;
use common::{Bed, Shims};
use core_api::Any;
use core_api::containers::{
    Container, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest,
    GetContainerRequest, GetContainerResponse, ListContainersRequest, ListContainersResponse,
    UpdateContainerRequest, UpdateContainerResponse,
};
use core_api::events_service::{Envelope, SubscribeRequest};
use core_api::leases::{CreateRequest, CreateResponse, DeleteRequest, ListRequest, ListResponse};
use protobuf::Message;
use task_api::events::TaskExit;
use tokio::sync::RwLock;
use tonic::{Code, Status};

/// The state of what one client owns: the values it may have. `None` is: not there. One, when the
/// daemon has acknowledged it; more, when it died over the answer.
type Facts = BTreeMap<String, BTreeSet<Option<String>>>;

struct Storm {
    address: PathBuf,
    namespace: String,
    rootfs: String,
    spec: Any,
    over: AtomicBool,
    /// Held for reading during each call, and for writing while it is seen what is there.
    calm: RwLock<()>,
    containers: Mutex<Facts>,
    leases: Mutex<Facts>,
    /// Exits that subscribers were told: container, process, pid to code.
    told: Mutex<BTreeMap<(String, String, u32), BTreeSet<u32>>>,
    /// Processes whose start was acknowledged: the same, to the code they end with.
    started: Mutex<BTreeMap<(String, String, u32), u32>>,
    acknowledged: AtomicU32,
}

/// Whether there was no answer: what the daemon answers has no cause on this side.
fn lost(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

impl Storm {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    async fn peer(&self) -> Peer {
        loop {
            // It may die between the two: then the task that connects fails, and not the client.
            if tokio::net::UnixStream::connect(&self.address).await.is_ok() {
                let (address, namespace) = (self.address.clone(), self.namespace.clone());
                let connect = async move { Peer::connect(&address, &namespace).await };
                if let Ok(peer) = tokio::spawn(connect).await {
                    return peer;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One call, as long as it takes to get an answer. With the answer comes whether an earlier
    /// try may have been carried out.
    async fn ask<A, R>(
        &self,
        peer: &mut Peer,
        method: &str,
        message: A,
    ) -> (Result<R, Status>, bool)
    where
        A: prost::Message + Clone + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let mut again = false;
        loop {
            let answer = {
                let _calm = self.calm.read().await;
                peer.call(method, message.clone()).await
            };
            match answer {
                Err(status) if lost(&status) => {
                    again = true;
                    *peer = self.peer().await;
                }
                answer => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    return (answer, again);
                }
            }
        }
    }

    /// A change that is tried once: what the client knows afterwards is one thing or the other.
    async fn change<A, R>(
        &self,
        peer: &mut Peer,
        (method, message): (&str, A),
        facts: &Mutex<Facts>,
        (id, value): (&str, Option<String>),
    ) where
        A: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let answer: Result<R, Status> = {
            let _calm = self.calm.read().await;
            let before = {
                let mut facts = facts.lock().unwrap();
                let may = facts.entry(id.to_owned()).or_insert_with(|| [None].into());
                let before = may.clone();
                may.insert(value.clone());
                before
            };
            let answer = peer.call(method, message).await;
            let mut facts = facts.lock().unwrap();
            match &answer {
                Ok(_) => drop(facts.insert(id.to_owned(), [value].into())),
                Err(status) if lost(status) => {}
                Err(_) => drop(facts.insert(id.to_owned(), before)),
            }
            answer
        };
        match answer {
            Ok(_) => drop(self.acknowledged.fetch_add(1, Ordering::Relaxed)),
            Err(status) if lost(&status) => *peer = self.peer().await,
            Err(status) => assert!(
                [Code::NotFound, Code::AlreadyExists].contains(&status.code()),
                "{method} {id}: {status:?}"
            ),
        }
    }

    fn record(&self, id: &str, label: &str, args: &[&str]) -> Container {
        let text = String::from_utf8(self.spec.value.clone()).unwrap();
        let mut spec: serde_json::Value = serde_json::from_str(&text).unwrap();
        spec["process"]["args"] = args.into();
        spec["linux"]["cgroupsPath"] = format!("/{}/{id}", self.namespace).into();
        spec["root"]["path"] = self.rootfs.as_str().into();
        Container {
            id: id.to_owned(),
            labels: [("l".to_owned(), label.to_owned())].into(),
            runtime: Some(core_api::containers::container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: None,
            }),
            spec: Some(Any {
                value: spec.to_string().into_bytes(),
                ..self.spec.clone()
            }),
            ..Container::default()
        }
    }

    /// A client that makes, labels and removes records.
    async fn clerk(self: Arc<Self>, number: u32) {
        let mut peer = self.peer().await;
        let mut round = 0;
        while !self.is_over() {
            round += 1;
            let id = format!("r{number}-{}", round % 40);
            let label = |n: u32| Some(format!("{round}.{n}"));
            let container = |n: u32| Some(self.record(&id, &format!("{round}.{n}"), &["x"]));
            let create = CreateContainerRequest {
                container: container(1),
            };
            let asked = ("containers.v1.Containers/Create", create);
            let known = (id.as_str(), label(1));
            self.change::<_, CreateContainerResponse>(&mut peer, asked, &self.containers, known)
                .await;
            let update = UpdateContainerRequest {
                container: container(2),
                update_mask: Some(core_api::FieldMask {
                    paths: vec!["labels".into()],
                }),
            };
            let asked = ("containers.v1.Containers/Update", update);
            let known = (id.as_str(), label(2));
            self.change::<_, UpdateContainerResponse>(&mut peer, asked, &self.containers, known)
                .await;
            if round % 3 == 0 {
                let id = format!("r{number}-{}", (round + 20) % 40);
                let delete = DeleteContainerRequest { id: id.clone() };
                let asked = ("containers.v1.Containers/Delete", delete);
                self.change::<_, ()>(&mut peer, asked, &self.containers, (&id, None))
                    .await;
            }
            let lease = format!("l{number}-{}", round % 30);
            let create = CreateRequest {
                id: lease.clone(),
                labels: [("l".to_owned(), round.to_string())].into(),
            };
            let asked = ("leases.v1.Leases/Create", create);
            let known = (lease.as_str(), Some(round.to_string()));
            self.change::<_, CreateResponse>(&mut peer, asked, &self.leases, known)
                .await;
            if round % 2 == 0 {
                let id = format!("l{number}-{}", (round + 15) % 30);
                let delete = DeleteRequest {
                    id: id.clone(),
                    sync: false,
                };
                let asked = ("leases.v1.Leases/Delete", delete);
                self.change::<_, ()>(&mut peer, asked, &self.leases, (&id, None))
                    .await;
            }
        }
    }

    /// A client that listens to exits, whenever there is somebody to listen to.
    async fn listener(self: Arc<Self>) {
        while !self.is_over() {
            let peer = self.peer().await;
            let subscribe = SubscribeRequest {
                filters: vec![r#"topic=="/tasks/exit""#.into()],
            };
            let stream = peer
                .stream::<_, Envelope>("events.v1.Events/Subscribe", subscribe)
                .await;
            let Ok(mut stream) = stream else { continue };
            while let Ok(Some(envelope)) = stream.message().await {
                let exit = TaskExit::parse_from_bytes(&envelope.event.unwrap().value).unwrap();
                let process = (exit.container_id, exit.id, exit.pid);
                let mut told = self.told.lock().unwrap();
                told.entry(process).or_default().insert(exit.exit_status);
            }
        }
    }

    /// Compares what is there with what was acknowledged. Nobody else asks meanwhile.
    async fn take_stock(&self, peer: &Peer) {
        let list = ListContainersRequest::default();
        let found: ListContainersResponse = peer
            .call("containers.v1.Containers/List", list)
            .await
            .unwrap();
        let found = found.containers.into_iter();
        compare(
            &self.containers,
            found.map(|c| (c.id, label(&c.labels))).collect(),
        );
        let list = ListRequest::default();
        let found: ListResponse = peer.call("leases.v1.Leases/List", list).await.unwrap();
        let found = found.leases.into_iter();
        compare(
            &self.leases,
            found.map(|l| (l.id, label(&l.labels))).collect(),
        );
    }
}

fn label(labels: &BTreeMap<String, String>) -> String {
    labels.get("l").cloned().unwrap_or_default()
}

fn compare(facts: &Mutex<Facts>, found: BTreeMap<String, String>) {
    let mut facts = facts.lock().unwrap();
    for (id, may) in facts.iter_mut() {
        let value = found.get(id).cloned();
        assert!(
            may.contains(&value),
            "{id} is {value:?}, not one of {may:?}"
        );
        *may = [value].into();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_nothing_acknowledged_is_lost_under_load_and_kills() {
    let slow = std::env::var_os("WHERRY_SLOW").is_some();
    let length = Duration::from_secs(if slow { 300 } else { 20 });
    let mut bed = Bed::new(Shims::Ours);
    let rootfs = bed.rootfs();
    bed.ctr(&["c", "create", "--rootfs", &rootfs, "model", "/bin/sh"])
        .ok();
    let peer = Peer::connect(&bed.address(), &bed.namespace).await;
    let get = GetContainerRequest { id: "model".into() };
    let model: GetContainerResponse = peer
        .call("containers.v1.Containers/Get", get)
        .await
        .unwrap();
    let storm = Arc::new(Storm {
        address: bed.address(),
        namespace: bed.namespace.clone(),
        rootfs,
        spec: model.container.unwrap().spec.unwrap(),
        over: AtomicBool::new(false),
        calm: RwLock::default(),
        containers: Mutex::default(),
        leases: Mutex::default(),
        told: Mutex::default(),
        started: Mutex::default(),
        acknowledged: AtomicU32::new(0),
    });
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..4 {
        clients.spawn(storm.clone().clerk(number));
        clients.spawn(storm.clone().runner(number));
    }
    let listener = tokio::spawn(storm.clone().listener());
    let end = Instant::now() + length;
    let mut kills = 0_u64;
    // On a busy machine it takes longer until there is something to see.
    let enough = |kills| {
        let (told, started) = (storm.told.lock().unwrap(), storm.started.lock().unwrap());
        kills > 5 && started.len() > 5 && started.keys().any(|one| told.contains_key(one))
    };
    let patience = end + Duration::from_secs(120);
    while Instant::now() < end || !enough(kills) && Instant::now() < patience {
        // At another moment of the load each time.
        tokio::time::sleep(Duration::from_millis(300 + kills * 137 % 900)).await;
        bed.kill();
        kills += 1;
        let nobody_asks = storm.calm.write().await;
        bed.start();
        let peer = Peer::connect(&bed.address(), &bed.namespace).await;
        storm.take_stock(&peer).await;
        drop(nobody_asks);
        while let Some(ended) = clients.try_join_next() {
            ended.unwrap();
        }
    }
    storm.over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    bed.kill();
    listener.await.unwrap();
    let (told, started) = (storm.told.lock().unwrap(), storm.started.lock().unwrap());
    let mut heard = 0;
    for (process, code) in started.iter() {
        if let Some(codes) = told.get(process) {
            heard += 1;
            // An exec may have been killed with its container before it came to its own end.
            let is_exec = process.0 != process.1;
            let right = |told: &u32| told == code || is_exec && *told == 137;
            assert!(
                codes.len() == 1 && codes.iter().all(right),
                "{process:?}: {codes:?}"
            );
        }
    }
    eprintln!(
        "{kills} kills, {} answers, {} processes started, the exits of {heard} heard as events",
        storm.acknowledged.load(Ordering::Relaxed),
        started.len()
    );
    assert!(kills > 5 && started.len() > 5 && heard > 0);
}
