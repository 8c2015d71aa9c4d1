//! Clients that unpack one layer at once, played call by call.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use core_api::leases;
use core_api::types::Mount;
use tonic::Code;

use crate::api::code;
use crate::common::{Bed, eventually, run};
use crate::tree::{describe, difference};
use crate::{Client, Layer, bed, counts, digest, extract, tree_of};

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_on_one_layer_unpack_it_once() {
    const CLIENTS: usize = 6;
    let (bed, metrics) = bed();
    let layers = [Layer::new("one", 1 << 20), Layer::new("two", 1 << 20)];
    for (round, snapshotter) in ["overlayfs", "native"].into_iter().enumerate() {
        let client = Client::new(&bed, snapshotter).await;
        let mut parent = String::new();
        for (depth, layer) in layers.iter().enumerate() {
            layer.store(&client.peer).await;
            let chain = digest(format!("{parent} {}", layer.diff).as_bytes());
            let mut clients = Vec::new();
            for number in 0..CLIENTS {
                let own = Client::new(&bed, snapshotter).await;
                let (parent, chain, layer) = (parent.clone(), chain.clone(), layer.clone());
                clients.push(tokio::spawn(async move {
                    let key = extract(number, &chain);
                    own.unpack(&key, &parent, &chain, &layer).await
                }));
            }
            let mut codes = Vec::new();
            for client in clients {
                codes.push(client.await.unwrap());
            }
            codes.sort_by_key(|code| i32::from(*code));
            let mut wanted = vec![Code::AlreadyExists; CLIENTS];
            wanted[0] = Code::Ok;
            assert_eq!(codes, wanted, "{snapshotter}");
            let done = round as u64 * 2 + depth as u64 + 1;
            let all = done * CLIENTS as u64;
            assert_eq!(counts(&metrics), (done, all - done), "{snapshotter}");
            parent = chain;
        }
        // What is there in the end is both layers.
        let expected = bed.dir.path().join(snapshotter);
        fs::create_dir(&expected).unwrap();
        let mounts = client.prepare("look", &parent).await;
        let point = bed.dir.path().join("point");
        fs::create_dir_all(&point).unwrap();
        for layer in &layers {
            let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&layer.blob[..]));
            archive.unpack(&expected).unwrap();
        }
        let seen = mounted(&mounts, &point, || describe(&point, true));
        let mut wanted = describe(&expected, true);
        // Folders that no layer names have the time at which they were made.
        let mut seen = seen;
        for tree in [&mut wanted, &mut seen] {
            tree.retain(|path, _| path.components().count() > 1);
        }
        assert_eq!(difference(&wanted, &seen), Vec::<String>::new());
        assert_eq!(seen.len(), 4);
    }
}

fn mounted<T>(mounts: &[Mount], point: &Path, look: impl FnOnce() -> T) -> T {
    let mounts: Vec<_> = mounts
        .iter()
        .map(|mount| sys::mount::Mount {
            kind: mount.r#type.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        })
        .collect();
    sys::mount::mount_all(&mounts, point).unwrap();
    let seen = look();
    sys::mount::unmount_recursive(point).unwrap();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_midway_leaves_the_layer_to_the_next() {
    let (bed, metrics) = bed();
    let layer = Layer::new("large", 12 << 20);
    let [first, second] = [
        Client::new(&bed, "overlayfs").await,
        Client::new(&bed, "overlayfs").await,
    ];
    layer.store(&first.peer).await;
    let chain = digest(b"chain");
    let mounts = first.prepare(&extract(1, &chain), "").await;
    let tree = tree_of(&mounts);
    let begun = {
        let (first, layer) = (first.clone(), layer.clone());
        tokio::spawn(async move { first.apply(&layer, mounts).await })
    };
    eventually("it has begun", || {
        fs::read_dir(&tree).unwrap().next().is_some()
    });
    let other = {
        let (second, layer, chain) = (second.clone(), layer.clone(), chain.clone());
        tokio::spawn(async move {
            let key = extract(2, &chain);
            second.unpack(&key, "", &chain, &layer).await
        })
    };
    begun.abort();
    drop(first);
    let _ = begun.await;
    assert_eq!(other.await.unwrap(), Code::Ok);
    assert_eq!(counts(&metrics).1, 0);
    assert!(second.is_there(&chain).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_removes_or_keeps_what_it_unpacked_is_not_waited_for_long() {
    let (bed, metrics) = bed();
    let layer = Layer::new("layer", 100);
    let client = Client::new(&bed, "overlayfs").await;
    layer.store(&client.peer).await;
    let chain = digest(b"chain");
    let first = extract(1, &chain);
    let mounts = client.prepare(&first, "").await;
    client.apply(&layer, mounts).await.unwrap();
    let next = |number| {
        let (client, layer, chain) = (client.clone(), layer.clone(), chain.clone());
        tokio::spawn(async move {
            let mounts = client.prepare(&extract(number, &chain), "").await;
            client.apply(&layer, mounts).await
        })
    };
    // It waits for the commit of the first, which does not come, and then does the work itself.
    assert_eq!(next(2).await.unwrap().unwrap(), layer.diff);
    assert_eq!(counts(&metrics), (2, 0));
    let third = next(3);
    client.remove(&extract(2, &chain)).await.unwrap();
    assert_eq!(third.await.unwrap().unwrap(), layer.diff);
    assert_eq!(counts(&metrics), (3, 0));
    // All have their layer, and whoever is first has it committed.
    client.commit(&first, &chain).await.unwrap();
    let late = client.commit(&extract(3, &chain), &chain).await;
    assert_eq!(code(&late), Code::AlreadyExists);
    // A layer that is broken for one is broken for the next.
    let broken = Layer {
        blob: layer.blob[..layer.blob.len() / 2].to_owned(),
        diff: "broken".to_owned(),
    };
    broken.store(&client.peer).await;
    for number in [4, 5] {
        let chain = digest(b"broken");
        let mounts = client.prepare(&extract(number, &chain), "").await;
        let refused = client.apply(&broken, mounts).await;
        assert_eq!(code(&refused), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_without_its_layer_is_never_committed() {
    let (mut bed, metrics) = bed();
    let layer = Layer::new("layer", 100);
    let client = Client::new(&bed, "overlayfs").await;
    layer.store(&client.peer).await;
    let chain = digest(b"chain");
    let unpack = async |client: &Client, number| {
        let key = extract(number, &chain);
        let mounts = client.prepare(&key, "").await;
        assert_eq!(client.apply(&layer, mounts).await.unwrap(), layer.diff);
        key
    };
    let first = unpack(&client, 1).await;
    let unlabelled = Client {
        labels: BTreeMap::new(),
        ..client.clone()
    };
    unlabelled.commit(&first, &chain).await.unwrap();
    // The layer is there already, and the next has nothing to unpack.
    let hollow = unpack(&client, 2).await;
    let second = unpack(&client, 3).await;
    assert_eq!(counts(&metrics), (1, 2));
    let refused = client.commit(&hollow, "another").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for word in [hollow.as_str(), &chain, "no other name"] {
        assert!(refused.message().contains(word), "{word}: {refused}");
    }
    // A daemon that comes back knows that too.
    bed.kill();
    bed.start();
    let client = Client::new(&bed, "overlayfs").await;
    let refused = client.commit(&hollow, "another").await;
    assert_eq!(code(&refused), Code::FailedPrecondition);
    // Nothing but the hollow ones needs the layer, and they keep it.
    collect(&client).await;
    assert!(client.is_there(&chain).await);
    let late = client.commit(&second, &chain).await;
    assert_eq!(code(&late), Code::AlreadyExists);
    client.remove(&second).await.unwrap();
    // Somebody removes it all the same: it has to be applied anew.
    client.remove(&chain).await.unwrap();
    let refused = client.commit(&hollow, &chain).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("apply the layer again"));
    let mounts = mounts_of(&bed, &hollow);
    assert_eq!(fs::read_dir(tree_of(&mounts)).unwrap().count(), 0);
    assert_eq!(
        client.apply(&layer, mounts.clone()).await.unwrap(),
        layer.diff
    );
    assert_eq!(fs::read_dir(tree_of(&mounts)).unwrap().count(), 1);
    client.commit(&hollow, &chain).await.unwrap();
    client.remove(&chain).await.unwrap();
}

/// Collects what nobody needs, and returns when that is done.
async fn collect(client: &Client) {
    let id = "to-be-deleted".to_owned();
    let create = leases::CreateRequest {
        id: id.clone(),
        ..leases::CreateRequest::default()
    };
    let made: Result<leases::CreateResponse, _> =
        client.peer.call("leases.v1.Leases/Create", create).await;
    made.unwrap();
    let delete = leases::DeleteRequest { id, sync: true };
    let gone: Result<(), _> = client.peer.call("leases.v1.Leases/Delete", delete).await;
    gone.unwrap();
}

/// The mounts of a snapshot on nothing, as the daemon tells them.
fn mounts_of(bed: &Bed, key: &str) -> Vec<Mount> {
    let told = bed.ctr(&["snapshots", "mounts", "/x", key]).ok();
    let source = told.split_whitespace().find(|word| word.ends_with("/fs"));
    vec![Mount {
        r#type: "bind".to_owned(),
        source: source.unwrap().to_owned(),
        target: String::new(),
        options: vec!["rw".to_owned(), "rbind".to_owned()],
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn another_layer_parent_or_namespace_is_unpacked_for_itself() {
    let (bed, metrics) = bed();
    let client = Client::new(&bed, "overlayfs").await;
    let layer = Layer::new("layer", 100);
    let other = Layer::new("other", 100);
    for layer in [&layer, &other] {
        layer.store(&client.peer).await;
    }
    let chain = digest(b"chain");
    let first = extract(1, &chain);
    assert_eq!(client.unpack(&first, "", &chain, &layer).await, Code::Ok);
    // The chain ID does not fit the layer, or not the parent: nothing is believed of it.
    let again = client.unpack(&extract(2, &chain), "", &chain, &other).await;
    assert_eq!(again, Code::AlreadyExists);
    let base = digest(b"base");
    assert_eq!(
        client.unpack(&extract(3, &base), "", &base, &other).await,
        Code::Ok
    );
    let again = client
        .unpack(&extract(4, &chain), &base, &chain, &layer)
        .await;
    assert_eq!(again, Code::AlreadyExists);
    let elsewhere = Client {
        peer: client.peer.of(&format!("{}-2", bed.namespace)),
        ..client.clone()
    };
    layer.store(&elsewhere.peer).await;
    let there = elsewhere
        .unpack(&extract(5, &chain), "", &chain, &layer)
        .await;
    assert_eq!(there, Code::Ok);
    let native = Client {
        snapshotter: "native",
        ..client.clone()
    };
    let there = native.unpack(&extract(6, &chain), "", &chain, &layer).await;
    assert_eq!(there, Code::Ok);
    // Names that say nothing of what they are for are unpacked into each time.
    for key in ["work 1", "extract-7", "extract-8 mine"] {
        let mounts = client.prepare(key, "").await;
        client.apply(&layer, mounts).await.unwrap();
    }
    assert_eq!(counts(&metrics), (9, 0));
    for namespace in [&bed.namespace, &format!("{}-2", bed.namespace)] {
        let list = ["-n", namespace.as_str(), "snapshots", "ls"];
        assert!(run(bed.ctr_command().args(list)).ok().contains(&chain));
    }
}
