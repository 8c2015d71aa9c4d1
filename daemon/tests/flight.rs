//! A layer is unpacked once, however many clients ask for it at the same time, and no client gets a
//! snapshot that lacks its layer. Raw clients, in the order of calls that ctr, the CRI plugin and
//! Docker have. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;
#[path = "common/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use api::{Peer, code};
use common::{Background, Bed, Shims, eventually, quietly, those_that_end_well};
use core_api::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use core_api::diff::{ApplyRequest, ApplyResponse};
use core_api::leases;
use core_api::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    StatSnapshotRequest, StatSnapshotResponse,
};
use core_api::types::{Descriptor, Mount};
use sha2::{Digest, Sha256};
use tonic::{Code, Status};
use tree::{describe, difference};

const ROOT: &str = "containerd.io/gc.root";

fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer as an image has it.
#[derive(Clone)]
struct Layer {
    blob: Vec<u8>,
    diff: String,
}

impl Layer {
    /// A file with `size` bytes that compress well, and some that tell `name` from others.
    fn new(name: &str, size: usize) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, data) in [("small", name.as_bytes()), ("big", &vec![b'x'; size])] {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o640);
            header.set_mtime(1_000_000_000);
            archive
                .append_data(&mut header, format!("{name}/{path}"), data)
                .unwrap();
        }
        let archive = archive.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive).unwrap();
        Self {
            blob: gzip.finish().unwrap(),
            diff: digest(&archive),
        }
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            digest: digest(&self.blob),
            size: self.blob.len().try_into().unwrap(),
            ..Descriptor::default()
        }
    }

    /// Puts it into the content store, for good.
    async fn store(&self, peer: &Peer) {
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: self.diff.clone(),
            data: self.blob.clone(),
            labels: [(ROOT.to_owned(), "yes".to_owned())].into(),
            ..WriteContentRequest::default()
        };
        let (_, end): (Vec<WriteContentResponse>, _) = peer
            .converse("content.v1.Content/Write", None, vec![message])
            .await;
        assert!([Code::Ok, Code::AlreadyExists].contains(&code(&end)));
    }
}

/// One client of one snapshotter.
#[derive(Clone)]
struct Client {
    peer: Peer,
    snapshotter: &'static str,
    labels: BTreeMap<String, String>,
}

impl Client {
    async fn new(bed: &Bed, snapshotter: &'static str) -> Self {
        Self {
            peer: Peer::connect(&bed.address(), &bed.namespace)
                .await
                .without_limit(),
            snapshotter,
            labels: [(ROOT.to_owned(), "yes".to_owned())].into(),
        }
    }

    async fn call<A, R>(&self, method: &str, message: A) -> Result<R, Status>
    where
        A: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.peer
            .call(&format!("snapshots.v1.Snapshots/{method}"), message)
            .await
    }

    async fn prepare(&self, key: &str, parent: &str) -> Vec<Mount> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: self.labels.clone(),
        };
        let answer: PrepareSnapshotResponse = self.call("Prepare", request).await.unwrap();
        answer.mounts
    }

    async fn apply(&self, layer: &Layer, mounts: Vec<Mount>) -> Result<String, Status> {
        let request = ApplyRequest {
            diff: Some(layer.descriptor()),
            mounts,
            ..ApplyRequest::default()
        };
        let answer: ApplyResponse = self.peer.call("diff.v1.Diff/Apply", request).await?;
        Ok(answer.applied.unwrap().digest)
    }

    async fn commit(&self, key: &str, name: &str) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: self.labels.clone(),
        };
        self.call("Commit", request).await
    }

    async fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
        };
        self.call("Remove", request).await
    }

    async fn is_there(&self, key: &str) -> bool {
        let request = StatSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
        };
        let found: Result<StatSnapshotResponse, _> = self.call("Stat", request).await;
        found.is_ok()
    }

    /// All that an unpacker does for one layer; the code that its Commit ends with.
    async fn unpack(&self, key: &str, parent: &str, chain: &str, layer: &Layer) -> Code {
        let mounts = self.prepare(key, parent).await;
        assert_eq!(self.apply(layer, mounts).await.unwrap(), layer.diff);
        let committed = code(&self.commit(key, chain).await);
        if committed != Code::Ok {
            self.remove(key).await.unwrap();
        }
        committed
    }
}

fn extract(number: usize, chain: &str) -> String {
    format!("extract-{number}-Ab_c {chain}")
}

/// Where writing to mounts writes to.
fn tree_of(mounts: &[Mount]) -> PathBuf {
    let mount = &mounts[0];
    let mut options = mount.options.iter();
    let upper = options.find_map(|option| option.strip_prefix("upperdir="));
    upper.unwrap_or(&mount.source).into()
}

/// A bed that tells how many layers were unpacked and how many were shared.
fn bed() -> (Bed, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let config = format!("version = 2\n[metrics]\naddress = {address:?}\n");
    (Bed::with_config(Shims::Ours, &config), address)
}

fn counts(address: &str) -> (u64, u64) {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /v1/metrics HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let count = |how: &str| {
        let name = format!("wherry_layers_total{{how=\"{how}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap().parse().unwrap()
    };
    (count("unpacked"), count("shared"))
}

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
        assert!(
            common::run(bed.ctr_command().args(list))
                .ok()
                .contains(&chain)
        );
    }
}

/// An image of two layers as `docker save` writes it.
fn archive(size: usize) -> Vec<u8> {
    let mut image = tar::Builder::new(Vec::new());
    let mut add = |name: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        image.append_data(&mut header, name, data).unwrap();
    };
    let layers = [Layer::new("one", size), Layer::new("two", size)];
    for (number, layer) in layers.iter().enumerate() {
        add(&format!("{number}.tar"), &layer.blob);
    }
    let [one, two] = layers.map(|layer| layer.diff);
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{one}\",\"{two}\"]}}}}"
    );
    add("config.json", config.as_bytes());
    let manifest = "[{\"Config\":\"config.json\",\"RepoTags\":[\"test/image:1\"],\
                    \"Layers\":[\"0.tar\",\"1.tar\"]}]";
    add("manifest.json", manifest.as_bytes());
    image.into_inner().unwrap()
}

/// Imports the image without unpacking it: those who make one name at once may be told that it
/// exists, by containerd as well.
fn named(bed: &Bed, path: &Path) {
    let path = path.to_str().unwrap();
    bed.ctr(&["images", "import", "--no-unpack", path]).ok();
}

#[test]
fn ctr_imports_at_once_unpack_each_layer_once() {
    let (bed, metrics) = bed();
    let path = bed.dir.path().join("image.tar");
    fs::write(&path, archive(1 << 20)).unwrap();
    named(&bed, &path);
    let clients = (0..4).map(|number| {
        let mut ctr = bed.ctr_command();
        ctr.args(["images", "import"]).arg(&path);
        (number.to_string(), quietly(&mut ctr))
    });
    let clients = clients.collect();
    assert_eq!(those_that_end_well(clients), ["0", "1", "2", "3"]);
    assert_eq!(counts(&metrics).0, 2);
    let check = bed.ctr(&["images", "check"]).ok();
    assert!(check.contains("complete (3/3)"), "{check}");
    let listed = bed.ctr(&["snapshots", "ls"]).ok();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(!listed.contains("extract-"), "{listed}");
}

#[test]
fn a_ctr_that_is_killed_midway_leaves_the_image_to_the_other() {
    let (bed, _) = bed();
    let path = bed.dir.path().join("image.tar");
    fs::write(&path, archive(768 << 10)).unwrap();
    named(&bed, &path);
    let import = || {
        let mut ctr = bed.ctr_command();
        quietly(ctr.args(["images", "import"]).arg(&path))
    };
    let mut first = Background::of(import());
    let snapshots = "root/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs";
    let tree = bed.dir.path().join(snapshots);
    eventually("it unpacks", || {
        fs::read_dir(&tree).is_ok_and(|mut tree| tree.next().is_some())
    });
    let other = import();
    first.stop();
    let ended = those_that_end_well(vec![("other".to_owned(), other)]);
    assert_eq!(ended, ["other"]);
    let check = bed.ctr(&["images", "check"]).ok();
    assert!(check.contains("complete (3/3)"), "{check}");
    bed.ctr(&["images", "rm", "--sync", "docker.io/test/image:1"])
        .ok();
}
