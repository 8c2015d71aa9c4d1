//! Images as `umoci`, `buildah` and Docker make them, brought by a real registry or as archives:
//! what our daemon unpacks of them is, entry by entry and with all metadata, what Debian's
//! containerd unpacks from the same bytes. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;
#[path = "common/docker.rs"]
mod docker;
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

use std::path::Path;
use std::process::Command;

use common::run;
use docker::Docker;
use made::{Buildah, archive, base, by_umoci, change};
use pair::{Pair, SIDES, Side};
use registry::{Registry, forgetful};
use tree::{Tree, difference};

/// Pulls an image on both sides in a namespace of its own, into both snapshotters, and answers the
/// tree, which is the same everywhere.
#[track_caller]
fn pulled(pair: &Pair, registry: &Registry, image: &str) -> Tree {
    let namespace = format!("{}-{}", pair.namespace, image.replace([':', '/'], "-"));
    let image = registry.name(image);
    let trees = ["overlayfs", "native"].map(|snapshotter| {
        for side in SIDES {
            let arguments = [
                "images",
                "pull",
                "--plain-http",
                "--snapshotter",
                snapshotter,
                &image,
            ];
            pair.within(side, &namespace, &arguments).ok();
        }
        pair.same_tree(&namespace, snapshotter, &image, 20)
    });
    let [overlay, native] = trees;
    assert_eq!(
        difference(&overlay, &native),
        Vec::<String>::new(),
        "{image}"
    );
    overlay
}

/// What [`change`] and the layers after it must have come to.
#[track_caller]
fn is_changed(tree: &Tree) {
    let has = |name: &str| tree.get(Path::new(name)).map(String::as_str);
    for gone in ["linked", "partly/one", "whole", "folder/deep/below"] {
        assert_eq!(has(gone), None, "{gone}: {tree:#?}");
    }
    for (name, part) in [
        ("partly/two", "100644 0:0"),
        ("folder/deep", "100"),
        ("char", "40"),
        ("relative", "elsewhere"),
        ("bin/ping", "security.capability="),
        ("empty", "user.note="),
        ("setuid", "106751 1000:2000"),
        ("block", "device"),
        ("owned", "3000000:4000000000"),
    ] {
        let found = has(name).unwrap_or_else(|| panic!("{name} is missing: {tree:#?}"));
        assert!(found.contains(part), "{name}: {found}");
    }
}

#[test]
fn what_umoci_makes_comes_out_of_every_compression_as_from_containerd() {
    let (pair, registry) = (Pair::new(), Registry::new());
    let dir = tempfile::tempdir().unwrap();
    let layout = by_umoci(dir.path());
    let source = format!("oci:{}:one", layout.display());
    registry.fill(&source, "umoci:gzip", &[]);
    // What is not compressed stays so only on the way through a folder.
    let plain = format!("dir:{}", dir.path().join("plain").display());
    run(forgetful("skopeo").args(["copy", "--quiet", "--dest-decompress", &source, &plain])).ok();
    registry.fill(&plain, "umoci:plain", &["--preserve-digests"]);
    let zstd = ["--format", "oci", "--dest-compress-format", "zstd"];
    // Of a name of its own: blobs that a repository has already are not compressed once more.
    registry.fill(&plain, "other:zstd", &zstd);
    let trees = [
        ("umoci:gzip", "tar+gzip"),
        ("umoci:plain", "layer.v1.tar\""),
        ("other:zstd", "tar+zstd"),
    ]
    .map(|(image, media)| {
        let manifest = registry.manifest(image);
        assert!(manifest.contains(media), "{manifest}");
        pulled(&pair, &registry, image)
    });
    is_changed(&trees[0]);
    let opaque = |name: &str| trees[0].contains_key(&Path::new("opaque").join(name));
    assert!(
        opaque("third") && !opaque("file") && !opaque("deep"),
        "{:#?}",
        trees[0]
    );
    for tree in &trees[1..] {
        assert_eq!(difference(&trees[0], tree), Vec::<String>::new());
    }

    // The same as an archive.
    let tar = dir.path().join("oci.tar");
    let to = format!("oci-archive:{}:one", tar.display());
    run(forgetful("skopeo").args(["copy", "--quiet", &source, &to])).ok();
    let index = [
        "images",
        "import",
        "--base-name",
        "umoci",
        tar.to_str().unwrap(),
    ];
    pair.both(&index);
    let tree = pair.same_tree(&pair.namespace, "overlayfs", "umoci:one", 20);
    assert_eq!(difference(&trees[0], &tree), Vec::<String>::new());
}

#[test]
fn what_buildah_makes_comes_out_as_from_containerd() {
    let (pair, registry) = (Pair::new(), Registry::new());
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    base(&files);
    let tar = archive(&files, dir.path());
    let buildah = Buildah::new(dir.path());
    let container = buildah.run(&["from", "scratch"]);
    buildah.run(&["add", "-q", &container, tar.to_str().unwrap(), "/"]);
    buildah.run(&[
        "config",
        "--env",
        "PATH=/bin",
        "--cmd",
        "/bin/sh",
        &container,
    ]);
    buildah.run(&["commit", "-q", &container, "one"]);
    let container = buildah.run(&["from", "one"]);
    let folder = buildah.run(&["mount", &container]);
    change(Path::new(&folder));
    buildah.run(&["umount", &container]);
    let script = "busybox rm -r /opaque && busybox mkdir /opaque && echo third > /opaque/third && \
                  busybox ln /opaque/third /third";
    buildah.run(&[
        "run",
        "--isolation",
        "chroot",
        "--network",
        "host",
        &container,
        "/bin/sh",
        "-c",
        script,
    ]);
    buildah.run(&["commit", "-q", &container, "two"]);
    let to = format!("docker://{}", registry.name("buildah:1"));
    buildah.run(&["push", "-q", "--tls-verify=false", "two", &to]);
    let tree = pulled(&pair, &registry, "buildah:1");
    is_changed(&tree);
    assert!(
        tree[Path::new("third")].contains("is opaque/third"),
        "{tree:#?}"
    );

    let tar = dir.path().join("buildah.tar");
    let tar = tar.to_str().unwrap();
    buildah.run(&[
        "push",
        "-q",
        "two",
        &format!("docker-archive:{tar}:buildah:two"),
    ]);
    pair.both(&["images", "import", tar]);
    let name = "docker.io/library/buildah:two";
    let imported = pair.same_tree(&pair.namespace, "overlayfs", name, 20);
    assert_eq!(difference(&tree, &imported), Vec::<String>::new());
}

#[test]
fn what_docker_saves_comes_out_as_from_containerd_and_docker_loads_what_ctr_exports() {
    let (pair, registry) = (Pair::new(), Registry::new());
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    base(&files);
    let tar = archive(&files, dir.path());
    let before = pair.one(Side::Ours, &["content", "ls", "-q"]).ok();
    let docker = Docker::new(&pair.ours);
    docker
        .run(&[
            "import",
            "--change",
            "ENV PATH=/bin",
            tar.to_str().unwrap(),
            "made:1",
        ])
        .ok();
    let script =
        "set -e; busybox rm -r /linked /partly/one /whole /folder/deep /char /relative /opaque
        busybox mkdir /char /opaque; echo file > /folder/deep; busybox ln -s elsewhere /relative
        echo third > /opaque/third; busybox ln /opaque/third /third; echo more >> /folder/plain";
    docker
        .run(&[
            "run",
            "--name",
            "changed",
            "--network",
            "none",
            "made:1",
            "sh",
            "-c",
            script,
        ])
        .ok();
    docker.run(&["commit", "changed", "made:2"]).ok();
    // Docker keeps its images to itself, whatever it runs on.
    assert_eq!(pair.one(Side::Ours, &["content", "ls", "-q"]).ok(), before);
    assert_eq!(pair.one(Side::Ours, &["images", "ls", "-q"]).ok(), "");
    let saved = dir.path().join("saved.tar");
    let saved = saved.to_str().unwrap();
    docker.run(&["save", "-o", saved, "made:1", "made:2"]).ok();

    pair.both(&["images", "import", saved]);
    let made = |tag: u32| format!("docker.io/library/made:{tag}");
    pair.same_tree(&pair.namespace, "overlayfs", &made(1), 20);
    let tree = pair.same_tree(&pair.namespace, "overlayfs", &made(2), 20);
    is_changed(&tree);
    assert!(
        tree[Path::new("third")].contains("is opaque/third"),
        "{tree:#?}"
    );
    registry.fill(&format!("docker-archive:{saved}:made:2"), "docker:2", &[]);
    let through = pulled(&pair, &registry, "docker:2");
    assert_eq!(difference(&tree, &through), Vec::<String>::new());

    // And back: Docker has the layers that it had.
    let exported = dir.path().join("exported.tar");
    let exported = exported.to_str().unwrap();
    pair.one(Side::Ours, &["images", "export", exported, &made(2)])
        .ok();
    let layers = || docker.inspect("made:2", "{{.RootFS.Layers}}");
    let had = layers();
    docker.run(&["rm", "changed"]).ok();
    docker.run(&["rmi", "made:2"]).ok();
    docker.run(&["load", "-i", exported]).ok();
    assert_eq!(layers(), had);
    let ran = docker.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "made:2",
        "busybox",
        "cat",
        "/third",
    ]);
    assert_eq!(ran.stdout, "third\n", "{ran:?}");
}

#[test]
fn an_index_is_pulled_and_exported_by_platform() {
    let (pair, registry) = (Pair::new(), Registry::new());
    let dir = tempfile::tempdir().unwrap();
    let layout = made::index(dir.path());
    registry.fill(
        &format!("oci:{}:both", layout.display()),
        "index:1",
        &["--all", "--preserve-digests"],
    );
    let image = registry.name("index:1");
    let pull = |more: &[&str]| {
        let mut arguments = vec!["images", "pull", "--plain-http"];
        arguments.extend(more);
        arguments.push(&image);
        pair.both(&arguments);
        let blobs = pair.same(&["content", "ls", "-q"]).stdout.lines().count();
        pair.same(&["images", "ls"]);
        pair.same(&["images", "check"]);
        blobs
    };
    // The index, and manifest, configuration and layer of one platform.
    assert_eq!(pull(&[]), 4);
    let tree = pair.same_tree(&pair.namespace, "overlayfs", &image, 2);
    assert!(tree.contains_key(Path::new("amd64")), "{tree:#?}");
    assert_eq!(pull(&["--platform", "linux/arm64"]), 7);
    assert_eq!(pull(&["--all-platforms"]), 7);
    let out = dir.path().join("out.tar");
    let arm = [
        "images",
        "export",
        "--platform",
        "linux/arm64",
        out.to_str().unwrap(),
        &image,
    ];
    let listings = SIDES.map(|side| {
        pair.one(side, &arm).ok();
        run(Command::new("tar").args(["-tvf", out.to_str().unwrap()])).ok()
    });
    assert_eq!(listings[0], listings[1]);
    pair.same(&["images", "rm", "--sync", &image]);
    assert_eq!(pair.same(&["content", "ls", "-q"]).stdout, "");
    pair.same(&[
        "images",
        "import",
        "--all-platforms",
        "--no-unpack",
        out.to_str().unwrap(),
    ]);
    pair.same(&["images", "ls"]);
}
