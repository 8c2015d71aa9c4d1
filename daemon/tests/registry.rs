//! Pulling from a real registry and pushing to it, with Debian's `ctr`: several at once, and
//! interrupted. What is asked of the registry is seen by a proxy before it. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;
#[path = "common/made.rs"]
mod made;
#[path = "common/pair.rs"]
mod pair;
#[path = "common/registry.rs"]
mod registry;
#[path = "common/rich.rs"]
mod rich;
#[path = "common/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Background, Bed, Shims, background, eventually, quietly, run, those_that_end_well};
use made::{archive, by_umoci, random};
use pair::{Pair, SIDES, Side};
use registry::{Asked, Proxy, Registry};

/// How much a test lets through before it interrupts: more than all documents of an image, less
/// than its layer.
const SOME: usize = 3 << 20;
/// The size of the one layer of [`filled`], in bytes, more or less: what is random stays as long
/// as it is when it is compressed.
const LAYER: usize = 8 << 20;

/// A registry with an image of one layer, `big:1`.
fn filled() -> Registry {
    let registry = Registry::new();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/random"), random(LAYER)).unwrap();
    let image = format!("{}:one", at("layout").display());
    let umoci = |arguments: &[&str]| run(Command::new("umoci").args(arguments)).ok();
    umoci(&["init", "--layout", at("layout").to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    let layer = archive(&at("tree"), dir.path());
    umoci(&[
        "raw",
        "add-layer",
        "--image",
        &image,
        layer.to_str().unwrap(),
    ]);
    registry.fill(&format!("oci:{image}"), "big:1", &[]);
    registry
}

fn pull(bed: &Bed, image: &str) -> Command {
    let mut command = bed.ctr_command();
    command.args(["images", "pull", "--plain-http", image]);
    command
}

/// How often the bytes of each blob were asked for.
fn counts(proxy: &Proxy) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for asked in proxy.asked().iter().filter(|asked| asked.is_blob()) {
        *counts.entry(asked.path.clone()).or_default() += 1;
    }
    counts
}

/// The bytes of unfinished uploads on disk.
fn uploaded(bed: &Bed) -> u64 {
    let ingests = bed.root.join("io.containerd.content.v1.content/ingest");
    let data = |entry: fs::DirEntry| fs::metadata(entry.path().join("data")).ok();
    let entries = fs::read_dir(ingests).into_iter().flatten().flatten();
    entries.filter_map(data).map(|data| data.len()).sum()
}

/// Begins to pull, and waits until the proxy holds back the rest and the daemon has some of it.
fn begun(bed: &Bed, proxy: &Proxy, image: &str) -> Background {
    proxy.hold_after(SOME);
    let mut command = pull(bed, image);
    let out = bed.dir.path().join("pull");
    let client = background(command.stderr(Stdio::null()), &out);
    eventually("it is on its way", || {
        proxy.is_holding() && uploaded(bed) > SOME as u64 / 2
    });
    client
}

/// Sees that of the layer only the rest was asked for. The configuration, which is fetched beside
/// it, may not have got through before.
fn resumed(proxy: &Proxy, before: usize) {
    let asked = proxy.asked().split_off(before);
    let blobs: Vec<&Asked> = asked.iter().filter(|asked| asked.is_blob()).collect();
    let (rests, wholes): (Vec<&Asked>, Vec<&Asked>) = blobs
        .iter()
        .copied()
        .partition(|asked| asked.range.is_some());
    let [layer] = rests.as_slice() else {
        panic!("the rest of the layer, once: {blobs:#?}");
    };
    let range = layer.range.as_deref().unwrap_or_default();
    let from = range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'));
    let from: usize = from.and_then(|from| from.parse().ok()).unwrap_or_default();
    assert!(from > SOME / 2 && from <= SOME, "{layer:?}");
    let is_other = |whole: &&Asked| whole.path != layer.path;
    assert!(
        wholes.len() <= 1 && wholes.iter().all(is_other),
        "{blobs:#?}"
    );
}

#[test]
fn two_pulls_at_once_both_end_well_and_fetch_each_blob_once() {
    let registry = Registry::new();
    let dir = tempfile::tempdir().unwrap();
    let layout = by_umoci(dir.path());
    registry.fill(&format!("oci:{}:one", layout.display()), "image:1", &[]);
    let (bed, proxy) = (Bed::new(Shims::Ours), Proxy::new(&registry));
    let image = format!("{}/image:1", proxy.host);
    // Held back until all of them wait for the same.
    proxy.hold_after(SOME / 3);
    let names = ["one", "two", "three"];
    let pulls = names.map(|name| (name.to_owned(), quietly(&mut pull(&bed, &image))));
    eventually("all have begun", || {
        let manifests = |asked: &Asked| asked.path.contains("/manifests/");
        proxy.is_holding()
            && proxy
                .asked()
                .iter()
                .filter(|asked| manifests(asked))
                .count()
                >= 3
    });
    proxy.open();
    assert_eq!(those_that_end_well(pulls.into()), names);
    let counts = counts(&proxy);
    assert_eq!(
        counts.len(),
        4,
        "a configuration and three layers: {counts:#?}"
    );
    assert!(counts.values().all(|count| *count == 1), "{counts:#?}");
    let ran = bed.ctr(&["run", "--rm", &image, "r1", "/bin/sh", "-c", "echo $PATH"]);
    assert_eq!(ran.ok(), "/bin\n");
    assert_eq!(uploaded(&bed), 0);
}

#[test]
fn a_pull_whose_client_is_killed_goes_on_where_it_was() {
    let registry = filled();
    let (bed, proxy) = (Bed::new(Shims::Ours), Proxy::new(&registry));
    let image = format!("{}/big:1", proxy.host);
    let mut client = begun(&bed, &proxy, &image);
    client.stop();
    let active = bed.ctr(&["content", "active"]).ok();
    assert!(active.contains("layer-sha256:"), "{active}");
    let before = proxy.asked().len();
    proxy.open();
    run(&mut pull(&bed, &image)).ok();
    resumed(&proxy, before);
    is_whole(&bed, &image);
}

#[test]
fn a_pull_under_which_the_daemon_is_killed_goes_on_where_it_was() {
    let registry = filled();
    let (mut bed, proxy) = (Bed::new(Shims::Ours), Proxy::new(&registry));
    let image = format!("{}/big:1", proxy.host);
    let mut client = begun(&bed, &proxy, &image);
    bed.kill();
    proxy.open();
    assert_eq!(client.wait(), Some(1));
    bed.start();
    let before = proxy.asked().len();
    run(&mut pull(&bed, &image)).ok();
    resumed(&proxy, before);
    is_whole(&bed, &image);
}

/// Sees that an image is here, whole and unpacked, and goes without leaving anything.
fn is_whole(bed: &Bed, image: &str) {
    let check = bed.ctr(&["images", "check"]).ok();
    assert!(
        check.contains("complete (2/2)") && check.contains("true"),
        "{check}"
    );
    assert_eq!(uploaded(bed), 0);
    bed.ctr(&["images", "rm", "--sync", image]).ok();
    // What the interrupted client held is held by its lease, for a day.
    for lease in bed.ctr(&["leases", "ls", "-q"]).ok().lines() {
        bed.ctr(&["leases", "rm", "--sync", lease]).ok();
    }
    assert_eq!(bed.ctr(&["content", "ls", "-q"]).ok(), "");
    assert_eq!(bed.ctr(&["snapshots", "ls"]).ok().lines().count(), 1);
}

#[test]
fn what_one_daemon_pushes_the_other_pulls() {
    let (pair, registry) = (Pair::new(), Registry::new());
    let dir = tempfile::tempdir().unwrap();
    let layout = by_umoci(dir.path());
    registry.fill(&format!("oci:{}:one", layout.display()), "image:1", &[]);
    let image = registry.name("image:1");
    for side in SIDES {
        let other = if side == Side::Ours {
            Side::Theirs
        } else {
            Side::Ours
        };
        let namespace = format!("{}-{side:?}", pair.namespace).to_lowercase();
        let ctr = |side, arguments: &[&str]| pair.within(side, &namespace, arguments).ok();
        ctr(side, &["images", "pull", "--plain-http", &image]);
        let pushed = registry.name(&format!("pushed/{side:?}:2")).to_lowercase();
        ctr(side, &["images", "tag", &image, &pushed]);
        ctr(side, &["images", "push", "--plain-http", &pushed]);
        // What is there already is said to be.
        ctr(side, &["images", "push", "--plain-http", &pushed]);
        assert_eq!(
            registry.manifest(&format!("pushed/{side:?}:2").to_lowercase()),
            registry.manifest("image:1")
        );
        ctr(other, &["images", "pull", "--plain-http", &pushed]);
        let trees = [(side, &image), (other, &pushed)]
            .map(|(side, image)| pair.image_tree(side, &namespace, "overlayfs", image));
        assert_eq!(tree::difference(&trees[0], &trees[1]), Vec::<String>::new());
        assert!(trees[0].contains_key(Path::new("opaque/third")));
    }
}

#[test]
fn what_cannot_be_pulled_or_pushed_is_said_as_with_containerd() {
    let (pair, registry) = (Pair::new(), Registry::new());
    let nothing = registry.name("nothing:1");
    let pull = |image: &str| pair.same(&["images", "pull", "--plain-http", image]);
    assert!(pull(&nothing).stderr.contains("not found"));
    assert!(
        pull("127.0.0.1:1/closed:1")
            .stderr
            .contains("connection refused")
    );
    assert_ne!(pull("no reference").code, Some(0));
    let push = pair.same(&["images", "push", "--plain-http", &nothing]);
    assert!(push.stderr.contains("not found"), "{push:?}");
    pair.same(&[
        "content",
        "fetch-object",
        "--plain-http",
        &nothing,
        "sha256:00",
    ]);
    for list in [
        ["images", "ls"],
        ["content", "ls"],
        ["content", "active"],
        ["leases", "ls"],
    ] {
        pair.same(&list);
    }
}
