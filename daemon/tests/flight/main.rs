//! A layer is unpacked once, however many clients ask for it at the same time, and no client gets a
//! snapshot that lacks its layer. Raw clients, in the order of calls that ctr, the CRI plugin and
//! Docker have. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "../common/api.rs"]
mod api;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/tree.rs"]
mod tree;

mod clients;
mod ctr;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use api::{Peer, code};
use common::{Bed, Shims};
use core_api::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use core_api::diff::{ApplyRequest, ApplyResponse};
use core_api::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    StatSnapshotRequest, StatSnapshotResponse,
};
use core_api::types::{Descriptor, Mount};
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

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
