//! Names of images beside Debian's containerd, and the collector: what images, leases and labels
//! hold stays, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;

use std::fs;

use api::{Peer, Reference, code};
use common::{Bed, Shims, eventually, run};
use core_api::images::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse,
    Image, ListImagesRequest, ListImagesResponse, UpdateImageRequest, UpdateImageResponse,
};
use core_api::types::Descriptor;
use core_api::{FieldMask, prost};
use tonic::Code;

fn target(of: char) -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: format!("sha256:{}", of.to_string().repeat(64)),
        size: 7,
        annotations: [("who".to_owned(), "me".to_owned())].into(),
    }
}

fn image(name: &str) -> Image {
    Image {
        name: name.to_owned(),
        labels: [
            ("a".to_owned(), "b".to_owned()),
            ("none".to_owned(), String::new()),
        ]
        .into(),
        target: Some(target('a')),
        ..Image::default()
    }
}

/// What is compared of an image: all but its times.
fn told(image: Option<Image>) -> String {
    let image = image.unwrap();
    let target = image.target.unwrap_or_default();
    let times = [image.created_at, image.updated_at].map(|time| time.is_some());
    format!("{} {:?} {target:?} {times:?}", image.name, image.labels)
}

async fn call<A, R>(peer: &Peer, method: &str, request: A) -> Result<R, Code>
where
    A: prost::Message + 'static,
    R: prost::Message + Default + 'static,
{
    let method = format!("images.v1.Images/{method}");
    peer.call(&method, request)
        .await
        .map_err(|refusal| refusal.code())
}

async fn everything(peer: &Peer) -> Vec<String> {
    let mut said = Vec::new();
    let none = Image {
        target: None,
        ..image("x")
    };
    let mut no_size = image("x");
    no_size.target.as_mut().unwrap().size = 0;
    let mut no_digest = image("x");
    no_digest.target.as_mut().unwrap().digest = "sha256:x".to_owned();
    let mut no_type = image("x");
    no_type.target.as_mut().unwrap().media_type = String::new();
    let mut other_digest = image("sha512");
    other_digest.target.as_mut().unwrap().digest = format!("sha512:{}", "a".repeat(128));
    let mut long = image("long");
    long.labels.insert("k".repeat(4096), "v".to_owned());
    for wanted in [
        Some(image("docker.io/library/one:1")),
        Some(image("docker.io/library/one:1")),
        Some(image("two")),
        Some(image("a name / with anything?")),
        Some(image("")),
        Some(none),
        Some(no_size),
        Some(no_digest),
        Some(no_type),
        Some(other_digest),
        Some(long),
        None,
    ] {
        let request = CreateImageRequest {
            image: wanted.clone(),
            ..CreateImageRequest::default()
        };
        let made: Result<CreateImageResponse, _> = call(peer, "Create", request).await;
        let name = wanted.map(|image| image.name);
        said.push(format!(
            "create {name:?} {:?}",
            made.map(|made| told(made.image))
        ));
    }
    for filters in [
        vec![],
        vec!["name==two"],
        vec!["name~=one"],
        vec!["labels.a==b,name!=two"],
        vec!["target.digest==nothing"],
        vec!["target.mediatype~=manifest"],
        vec!["annotations.who==me"],
        vec!["labels.none"],
        vec!["name=="],
    ] {
        let request = ListImagesRequest {
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        };
        let found: Result<ListImagesResponse, _> = call(peer, "List", request).await;
        let names = found.map(|found| {
            let names = found.images.into_iter().map(|image| image.name);
            names.collect::<Vec<_>>()
        });
        said.push(format!("list {filters:?} {names:?}"));
    }
    for (name, paths) in [
        ("two", vec!["labels.c"]),
        ("two", vec!["labels.a", "target"]),
        ("two", vec!["target"]),
        ("two", vec!["annotations"]),
        ("two", vec!["annotations.more"]),
        ("two", vec!["name"]),
        ("two", vec!["labels"]),
        ("two", vec![]),
        ("three", vec![]),
        ("", vec![]),
    ] {
        let mut wanted = image(name);
        wanted.labels = [("c".to_owned(), "d".to_owned())].into();
        wanted.target = Some(target('b'));
        let notes = [("more".to_owned(), "text".to_owned())];
        wanted.target.as_mut().unwrap().annotations = notes.into();
        let request = UpdateImageRequest {
            image: Some(wanted),
            update_mask: Some(FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..UpdateImageRequest::default()
        };
        let made: Result<UpdateImageResponse, _> = call(peer, "Update", request).await;
        said.push(format!(
            "update {paths:?} {:?}",
            made.map(|made| told(made.image))
        ));
    }
    for name in ["two", "three", ""] {
        let request = GetImageRequest {
            name: name.to_owned(),
        };
        let found: Result<GetImageResponse, _> = call(peer, "Get", request).await;
        said.push(format!(
            "get {name} {:?}",
            found.map(|found| told(found.image))
        ));
    }
    for name in ["two", "two", ""] {
        let request = DeleteImageRequest {
            name: name.to_owned(),
            ..DeleteImageRequest::default()
        };
        let gone: Result<(), _> = call(peer, "Delete", request).await;
        said.push(format!("delete {name} {gone:?}"));
    }
    let nowhere: Result<(), _> = peer
        .nowhere()
        .call("images.v1.Images/Delete", DeleteImageRequest::default())
        .await;
    said.push(format!("nowhere {:?}", code(&nowhere)));
    said
}

#[tokio::test]
async fn both_daemons_answer_the_same() {
    let bed = Bed::new(Shims::Ours);
    let reference = Reference::new("");
    let ours = everything(&Peer::connect(&bed.address(), "images").await).await;
    let theirs = everything(&Peer::connect(&reference.address(), "images").await).await;
    let pairs = ours.iter().zip(&theirs);
    let differ: Vec<_> = pairs.filter(|(ours, theirs)| ours != theirs).collect();
    assert!(differ.is_empty(), "ours is left: {differ:#?}");
    assert_eq!(ours.len(), theirs.len());
}

/// Waits until the collection at the start is over, which would take what nothing holds yet.
fn settle(bed: &Bed) {
    eventually("the collector is ready", || {
        bed.log().contains("collector ready")
    });
}

/// How many blobs there are files of.
fn files(bed: &Bed) -> usize {
    let blobs = bed
        .dir
        .path()
        .join("root/io.containerd.content.v1.content/blobs/sha256");
    fs::read_dir(blobs).unwrap().count()
}

/// Stores `text` under `namespace`, and answers its digest.
fn ingest(bed: &Bed, namespace: &str, text: &str) -> String {
    let mut command = std::process::Command::new("sh");
    let ctr = format!("ctr -a {} -n {namespace}", bed.address().display());
    let script = format!("printf %s '{text}' | {ctr} content ingest '{text}'");
    run(command.args(["-c", &script])).ok();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[test]
fn labels_hold_blobs_and_a_synchronous_deletion_waits_for_the_rest() {
    let bed = Bed::new(Shims::Ours);
    let namespace = bed.namespace.clone();
    settle(&bed);
    let root = ingest(&bed, &namespace, "root");
    bed.ctr(&["content", "label", &root, "containerd.io/gc.root=yes"])
        .ok();
    let part = ingest(&bed, &namespace, "part");
    let reference = format!("containerd.io/gc.ref.content.0={part}");
    bed.ctr(&["content", "label", &root, &reference]).ok();
    let loose = ingest(&bed, &namespace, "loose");
    let elsewhere = ingest(&bed, "elsewhere", "loose");
    assert_eq!(loose, elsewhere);
    let list = bed.ctr(&["content", "ls", "-q"]).ok();
    assert_eq!(list.lines().count(), 3, "{list}");
    assert_eq!(files(&bed), 3);

    bed.ctr(&["leases", "create", "--id", "l"]).ok();
    bed.ctr(&["leases", "rm", "--sync", "l"]).ok();
    let list = bed.ctr(&["content", "ls", "-q"]).ok();
    assert!(list.contains(&root) && list.contains(&part), "{list}");
    assert!(!list.contains(&loose), "{list}");
    assert_eq!(files(&bed), 2, "{list}");

    bed.ctr(&["content", "label", &root, "containerd.io/gc.root="])
        .ok();
    bed.ctr(&["leases", "create", "--id", "l"]).ok();
    bed.ctr(&["leases", "rm", "--sync", "l"]).ok();
    assert_eq!(bed.ctr(&["content", "ls", "-q"]).ok(), "");
    assert_eq!(files(&bed), 0);
}

#[test]
fn a_blob_lives_while_one_namespace_sees_it() {
    let bed = Bed::new(Shims::Ours);
    let pinned = "containerd.io/gc.root=yes";
    settle(&bed);
    for namespace in ["one", "two"] {
        let digest = ingest(&bed, namespace, "shared");
        let label = ["-n", namespace, "content", "label", &digest, pinned];
        run(bed.ctr_command().args(label)).ok();
    }
    let ns = |namespace: &str, words: &[&str]| {
        run(bed.ctr_command().args(["-n", namespace]).args(words)).ok()
    };
    let digest = ns("one", &["content", "ls", "-q"]).trim().to_owned();
    ns("one", &["content", "rm", &digest]);
    assert_eq!(ns("one", &["content", "ls", "-q"]), "");
    bed.ctr(&["leases", "create", "--id", "l"]).ok();
    bed.ctr(&["leases", "rm", "--sync", "l"]).ok();
    assert_eq!(ns("two", &["content", "get", &digest]), "shared");
    ns("two", &["content", "rm", &digest]);
    bed.ctr(&["leases", "create", "--id", "l"]).ok();
    bed.ctr(&["leases", "rm", "--sync", "l"]).ok();
    assert_eq!(files(&bed), 0);
}
