//! Images taken in, put out, listed and removed by `wherry`, under wherryd and under Debian's
//! containerd; what is left in the daemon is compared with what `ctr` leaves.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests run programs, and end where something is not as it must be"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use common::images::{self, Layout, architecture, busybox_layer, by_umoci, packed, simple};
use common::{Bed, Running, eventually, on_both_engines, run};
use serde_json::{Value, json};

on_both_engines! {
    an_import_leaves_what_ctr_leaves
    a_docker_archive_is_taken_in_any_packing
    an_archive_without_names_asks_for_one
    an_index_is_taken_for_one_platform_or_all
    a_broken_archive_is_refused_and_leaves_nothing
    an_export_goes_round_and_others_read_it
    images_are_listed_tagged_and_removed
    an_image_in_use_stays
    what_nothing_needs_is_counted_and_pruned
    an_interrupted_import_leaves_no_lease
    an_image_without_layers_can_be_had
}

/// What the daemon holds in the namespace, as `ctr` tells it, times left out.
#[derive(Debug, PartialEq)]
struct Holdings {
    images: BTreeSet<String>,
    blobs: BTreeMap<String, BTreeSet<String>>,
    snapshots: BTreeSet<String>,
    leases: usize,
}

fn holdings(bed: &Bed) -> Holdings {
    let lines = |arguments: &[&str]| -> Vec<String> {
        let text = bed.ctr(arguments).ok();
        text.lines().skip(1).map(str::to_owned).collect()
    };
    let squeezed = |line: String| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let blob = |line: String| {
        let digest = line.split_whitespace().next().unwrap().to_owned();
        let labels = line.split_whitespace().last().unwrap();
        (digest, labels.split(',').map(str::to_owned).collect())
    };
    Holdings {
        images: lines(&["images", "ls"]).into_iter().map(squeezed).collect(),
        blobs: lines(&["content", "ls"]).into_iter().map(blob).collect(),
        snapshots: lines(&["snapshots", "ls"])
            .into_iter()
            .map(squeezed)
            .collect(),
        leases: lines(&["leases", "ls"]).len(),
    }
}

/// All images, as they are told to programs.
fn listed(bed: &Bed) -> Vec<Value> {
    serde_json::from_str(&bed.wherry(&["images", "--format", "json"]).ok()).unwrap()
}

/// Waits until nothing but what images need is there.
fn settled(bed: &Bed) -> Holdings {
    eventually("the collector is through", || {
        let all = bed.wherry(&["df", "--format", "json"]).ok();
        let all: Value = serde_json::from_str(&all).unwrap();
        let rows = all["namespaces"].as_array().unwrap();
        let row = rows
            .iter()
            .find(|row| row["namespace"] == bed.namespace.as_str());
        // What no image keeps would be freed now.
        row.is_none_or(|row| row["images"] != 0 || row["blobs"] == 0)
    });
    holdings(bed)
}

fn in_file(bed: &Bed, name: &str, bytes: &[u8]) -> String {
    let path = bed.path(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[track_caller]
fn no_image_is_left(bed: &Bed) {
    assert!(listed(bed).is_empty(), "{:?}", listed(bed));
    bed.wherry(&["prune", "-y"]).ok();
    let left = holdings(bed);
    assert!(
        left.blobs.is_empty() && left.snapshots.is_empty(),
        "{left:?}"
    );
    assert_eq!(left.leases, 0);
}

fn an_import_leaves_what_ctr_leaves(bed: &mut Bed) {
    let archive = bed.path("oci.tar");
    packed(&by_umoci(bed), &archive);
    let docker = bed.path("docker.tar");
    let from = format!("oci:{}:latest", bed.path("umoci"));
    let to = format!("docker-archive:{docker}:docker.io/library/both:v1");
    run(Command::new("skopeo").args(["copy", &from, &to])).ok();
    let ours = bed.namespace.clone();
    // Each in namespaces of its own: of a layer that is there packed, `ctr` does not take the
    // unpacked one of the second archive.
    let cases: [(&[&str], &str); 2] = [
        (&["--base-name", "x.y/one", &archive], "x.y/one:latest"),
        (&[&docker], "docker.io/library/both:v1"),
    ];
    for (case, (arguments, name)) in cases.into_iter().enumerate() {
        bed.namespace = format!("{ours}-ours{case}");
        let import = [&["import"], arguments].concat();
        assert_eq!(bed.wherry(&import).ok(), format!("{name}\n"));
        bed.wherry(&["prune", "-y"]).ok();
        let we_left = holdings(bed);
        assert_eq!(we_left.snapshots.len(), 2, "{we_left:?}");
        // Again: all is there, and stays as it is.
        assert_eq!(bed.wherry(&import).ok(), format!("{name}\n"));
        bed.wherry(&["prune", "-y"]).ok();
        assert_eq!(holdings(bed), we_left);
        bed.wherry(&["rmi", name]).ok();
        bed.namespace = format!("{ours}-ctr{case}");
        bed.ctr(&[&["images", "import"], arguments].concat()).ok();
        bed.wherry(&["prune", "-y"]).ok();
        assert_eq!(we_left, holdings(bed));
        bed.wherry(&["rmi", name]).ok();
    }
    bed.namespace = ours;
}

fn a_docker_archive_is_taken_in_any_packing(bed: &mut Bed) {
    let layout = by_umoci(bed);
    let archive = bed.path("docker.tar");
    let from = format!("oci:{layout}:latest");
    let to = format!("docker-archive:{archive}:docker.io/library/packed:v1");
    run(Command::new("skopeo").args(["copy", &from, &to])).ok();
    run(Command::new("gzip").args(["-k", &archive])).ok();
    run(Command::new("zstd").args(["-q", "-k", &archive])).ok();
    bed.wherry(&["import", &archive]).ok();
    let first = listed(bed);
    assert_eq!(first[0]["name"], "docker.io/library/packed:v1");
    assert_eq!(
        first[0]["platforms"],
        json!([format!("linux/{}", architecture())])
    );
    for packed in ["docker.tar.gz", "docker.tar.zst"] {
        bed.wherry(&["rmi", "packed:v1"]).ok();
        let mut command = bed.command();
        let stdin = File::open(bed.path(packed)).unwrap();
        let mut running = Running::start(command.args(["import", "-"]).stdin(stdin));
        drop(running.child.stdin.take());
        assert_eq!(running.end().ok(), "docker.io/library/packed:v1\n");
        assert_eq!(listed(bed)[0]["digest"], first[0]["digest"]);
    }
    let named = bed.wherry(&["import", "-q", "--name", "other", "--no-unpack", &archive]);
    assert_eq!((named.stderr.as_str(), named.code), ("", Some(0)));
    assert_eq!(named.stdout, "docker.io/library/other:latest\n");
}

fn an_archive_without_names_asks_for_one(bed: &mut Bed) {
    let mut layout = Layout::new();
    let mut image = layout.image(architecture(), &json!({}), &busybox_layer("here"));
    image["annotations"] = json!({ "org.opencontainers.image.ref.name": "v7" });
    let index = json!({ "schemaVersion": 2, "manifests": [image] });
    layout
        .files
        .insert("index.json".to_owned(), index.to_string().into_bytes());
    let archive = in_file(bed, "a.tar", &layout.tar());
    let said = bed.wherry(&["import", &archive]).failed(1);
    assert!(
        said.contains("v7") && said.contains("--base-name"),
        "{said}"
    );
    no_image_is_left(bed);
    let line = ["import", "--base-name", "mine", &archive];
    assert_eq!(bed.wherry(&line).ok(), "docker.io/library/mine:v7\n");
    let line = ["import", "--name", "x.y/z", &archive];
    assert_eq!(bed.wherry(&line).ok(), "x.y/z:latest\n");
    let said = bed
        .wherry(&["import", "--name", "Not A Name", &archive])
        .failed(1);
    assert!(said.contains("Not A Name"), "{said}");
}

fn an_index_is_taken_for_one_platform_or_all(bed: &mut Bed) {
    let mut layout = Layout::new();
    let here = layout.image(architecture(), &json!({}), &busybox_layer("here"));
    let there = layout.image("s390x", &json!({}), &busybox_layer("there"));
    let note = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let mut attestation = layout.image("unknown", &json!({}), b"");
    attestation["annotations"] = note;
    let digest_there = there["digest"].as_str().unwrap().to_owned();
    let index = layout.index(&[attestation, there, here]);
    layout.name("x.y/multi:1", index);
    let archive = in_file(bed, "a.tar", &layout.tar());

    bed.wherry(&["import", &archive]).ok();
    bed.wherry(&["prune", "-y"]).ok();
    let one = holdings(bed);
    assert_eq!((one.blobs.len(), one.snapshots.len()), (4, 1), "{one:?}");
    assert_eq!(
        listed(bed)[0]["platforms"],
        json!([format!("linux/{}", architecture())])
    );
    let said = bed.wherry(&[
        "export",
        "-o",
        &bed.path("e.tar"),
        "--platform",
        "linux/s390x",
        "x.y/multi:1",
    ]);
    let said = said.failed(1);
    assert!(said.contains(&digest_there), "{said}");
    let said = bed.wherry(&[
        "export",
        "-o",
        &bed.path("e.tar"),
        "--all-platforms",
        "x.y/multi:1",
    ]);
    said.failed(1);

    // Another platform adds to what is there.
    bed.wherry(&["import", "--platform", "linux/s390x", &archive])
        .ok();
    bed.wherry(&["prune", "-y"]).ok();
    let two = holdings(bed);
    assert_eq!((two.blobs.len(), two.snapshots.len()), (7, 2), "{two:?}");
    let line = ["import", "--platform", "linux/riscv64", &archive];
    let said = bed.wherry(&line).failed(1);
    assert!(
        said.contains("linux/riscv64") && said.contains("linux/s390x"),
        "{said}"
    );

    bed.wherry(&["rmi", "x.y/multi:1"]).ok();
    bed.wherry(&["import", "--all-platforms", &archive]).ok();
    bed.wherry(&["prune", "-y"]).ok();
    let all = holdings(bed);
    assert_eq!((all.blobs.len(), all.snapshots.len()), (10, 1), "{all:?}");
    bed.wherry(&[
        "export",
        "-o",
        &bed.path("e.tar"),
        "--all-platforms",
        "x.y/multi:1",
    ])
    .ok();
}

fn a_broken_archive_is_refused_and_leaves_nothing(bed: &mut Bed) {
    let whole = simple("x.y/broken:1", &json!({}));
    let blob_of = |layout: &Layout, part: &str| {
        let is_part = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(part);
        let mut names = layout
            .files
            .keys()
            .filter(|name| name.starts_with("blobs/"));
        names
            .find(|name| is_part(&layout.files[*name]))
            .unwrap()
            .clone()
    };
    let refused = |layout: &[u8], expected: &[&str]| {
        let archive = in_file(bed, "broken.tar", layout);
        let said = bed.wherry(&["import", &archive]).failed(1);
        for word in expected {
            assert!(said.contains(word), "{word} is not in {said}");
        }
        assert!(said.len() < 600, "{said}");
        no_image_is_left(bed);
    };
    // A blob that is not there is named, whichever it is.
    for (part, what) in [
        ("diff_ids", "configuration"),
        ("layers\":[", "manifest"),
        ("ustar", "layer"),
    ] {
        let mut layout = whole.clone();
        let name = blob_of(&layout, part);
        layout.files.remove(&name);
        let digits = name.rsplit('/').next().unwrap();
        refused(&layout.tar(), &[digits, what]);
    }
    // One that is not what it is named.
    let mut layout = whole.clone();
    let name = blob_of(&layout, "diff_ids");
    layout.files.get_mut(&name).unwrap()[0] = b'!';
    refused(&layout.tar(), &[&name, "digest"]);
    // Cut off at any place.
    let tar = whole.tar();
    for length in [100, 512, 700, tar.len() / 2] {
        refused(&tar[..length], &["broken.tar"]);
    }
    refused(b"", &["index.json"]);
    refused(&[b'x'; 2048], &["no tar file"]);
    refused(&[0x1f, 0x8b, 1, 2, 3], &["broken.tar"]);
    // Documents of any size.
    let large = vec![b' '; (4 << 20) + 1];
    let mut layout = whole.clone();
    layout.files.insert("index.json".to_owned(), large.clone());
    refused(&layout.tar(), &["index.json", "4194304"]);
    let mut layout = Layout::new();
    let image = layout.blob("application/vnd.oci.image.manifest.v1+json", &large);
    layout.name("x.y/broken:1", image.clone());
    refused(
        &layout.tar(),
        &[image["digest"].as_str().unwrap(), "4194304"],
    );
    let mut layout = Layout::new();
    let config = layout.blob("application/vnd.oci.image.config.v1+json", &large);
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
    let manifest = layout.blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    layout.name("x.y/broken:1", manifest);
    refused(
        &layout.tar(),
        &[config["digest"].as_str().unwrap(), "4194304"],
    );
    // A layer that is another than the configuration says.
    let mut layout = Layout::new();
    let image = layout.image(architecture(), &json!({}), &busybox_layer("here"));
    layout.name("x.y/broken:1", image);
    let name = blob_of(&layout, "diff_ids");
    let config = String::from_utf8(layout.files.remove(&name).unwrap()).unwrap();
    let (start, _) = config.split_once("diff_ids\":[\"sha256:").unwrap();
    let wrong = format!(
        "{start}diff_ids\":[\"sha256:{}\"],\"type\":\"layers\"}}}}",
        "0".repeat(64)
    );
    let wrong: Value = serde_json::from_str(&wrong).expect(&wrong);
    let config = layout.blob(
        "application/vnd.oci.image.config.v1+json",
        wrong.to_string().as_bytes(),
    );
    let layer = busybox_layer("here");
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let manifest = layout.blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    layout.name("x.y/broken:1", manifest);
    refused(&layout.tar(), &["the configuration says", &"0".repeat(64)]);
    // Names are compared, and never used as paths.
    let list = json!([{ "Config": "../../../etc/passwd", "RepoTags": ["a:1"], "Layers": ["/etc/shadow"] }]);
    let list = list.to_string();
    refused(
        &images::tarball([("manifest.json", list.as_bytes())]),
        &["etc/passwd", "missing"],
    );
    let mut layout = whole.clone();
    layout
        .files
        .insert("../../../../tmp/wherry-escaped".to_owned(), b"x".to_vec());
    let archive = in_file(bed, "odd.tar", &layout.tar());
    bed.wherry(&["import", &archive]).ok();
    assert!(!std::path::Path::new("/tmp/wherry-escaped").exists());
    bed.wherry(&["rmi", "x.y/broken:1"]).ok();
    no_image_is_left(bed);
}

fn an_export_goes_round_and_others_read_it(bed: &mut Bed) {
    let config = json!({ "Cmd": ["sh"], "Env": ["A=b"] });
    let archive = in_file(
        bed,
        "in.tar",
        &simple("docker.io/library/round:1", &config).tar(),
    );
    bed.wherry(&["import", &archive]).ok();
    bed.wherry(&["tag", "round:1", "x.y/also"]).ok();
    let digest = listed(bed)[0]["digest"].clone();
    let export = |name: &str, images: &[&str]| {
        let path = bed.path(name);
        let line = [&["export", "-q", "-o", &path][..], images].concat();
        bed.wherry(&line).ok();
        path
    };
    let first = export("1.tar", &["round:1", "x.y/also"]);
    let second = export("2.tar", &["x.y/also", "round:1", "round:1"]);
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    let mut command = bed.command();
    let to_stdout = command.args(["export", "-o", "-", "round:1", "x.y/also"]);
    let piped = to_stdout.stdin(Stdio::null()).output().unwrap();
    assert_eq!(piped.stdout, fs::read(&first).unwrap());
    bed.wherry(&["export", "-o", &first, "nothing"]).failed(1);
    assert_eq!(
        piped.stdout,
        fs::read(&first).unwrap(),
        "a failed export spoils nothing"
    );
    bed.wherry(&["export", "-o", "/nowhere/x.tar", "round:1"])
        .failed(1);

    let inspect = |image: String| -> Value {
        let text = run(Command::new("skopeo").args(["inspect", &image])).ok();
        serde_json::from_str(&text).unwrap()
    };
    let one = export("one.tar", &["round:1"]);
    assert_eq!(inspect(format!("oci-archive:{one}"))["Digest"], digest);
    assert_eq!(
        inspect(format!("docker-archive:{one}"))["Env"],
        json!(["A=b"])
    );
    let copied = bed.path("copied.tar");
    let to = format!("oci-archive:{copied}:2");
    run(Command::new("skopeo").args(["copy", &format!("oci-archive:{one}:1"), &to])).ok();

    bed.wherry(&["rmi", "round:1", "x.y/also"]).ok();
    no_image_is_left(bed);
    bed.ctr(&["images", "import", &first]).ok();
    let names: Vec<Value> = listed(bed)
        .iter()
        .map(|image| image["name"].clone())
        .collect();
    assert_eq!(names, ["docker.io/library/round:1", "x.y/also:latest"]);
    bed.wherry(&["rmi", "round:1", "x.y/also"]).ok();
    bed.wherry(&["import", &first]).ok();
    assert!(listed(bed).iter().all(|image| image["digest"] == digest));
    bed.wherry(&["import", "--base-name", "x.y/copied", &copied])
        .ok();
}

fn images_are_listed_tagged_and_removed(bed: &mut Bed) {
    let archive = in_file(
        bed,
        "a.tar",
        &simple("docker.io/library/a:1", &json!({})).tar(),
    );
    bed.wherry(&["import", &archive]).ok();
    bed.wherry(&["tag", "a:1", "b"]).ok();
    bed.wherry(&["tag", "a:1", "a:2"]).ok();
    let said = bed.wherry(&["tag", "none", "c"]).failed(1);
    assert!(said.contains("none: no such image"), "{said}");
    let table = bed.wherry(&["images"]).ok();
    assert!(
        table.starts_with("NAME") && table.lines().count() == 4,
        "{table}"
    );
    assert_eq!(
        bed.wherry(&["images", "-q", "b"]).ok(),
        "docker.io/library/b:latest\n"
    );
    assert_eq!(bed.wherry(&["images", "-q", "a"]).ok().lines().count(), 2);
    let said = bed.wherry(&["images", "a", "zzz"]).failed(1);
    assert!(said.contains("zzz"), "{said}");
    let digest = listed(bed)[0]["digest"].as_str().unwrap().to_owned();
    assert!(table.contains(&digest[7..19]), "{table}");

    let said = bed.wherry(&["rmi", &digest[7..19]]).failed(1);
    assert!(said.contains("several names"), "{said}");
    let removed = bed.wherry(&["rmi", "a:1", "none"]);
    assert!(
        removed.stderr.contains("none: no such image"),
        "{removed:?}"
    );
    assert_eq!(removed.code, Some(1));
    assert!(
        removed
            .stdout
            .contains("removed docker.io/library/a:1\nfreed 0 B"),
        "{removed:?}"
    );
    let removed = bed.wherry(&["rmi", "-f", &digest[7..19]]).ok();
    assert!(
        removed.contains("b:latest") && removed.contains("a:2"),
        "{removed}"
    );
    assert!(removed.contains("MiB"), "{removed}");
    // Gone when it was said.
    let left = holdings(bed);
    assert!(
        left.blobs.is_empty() && left.snapshots.is_empty(),
        "{left:?}"
    );
}

fn an_image_in_use_stays(bed: &mut Bed) {
    let archive = in_file(
        bed,
        "a.tar",
        &simple("x.y/used:1", &json!({ "Cmd": ["sh"] })).tar(),
    );
    bed.wherry(&["import", &archive]).ok();
    bed.wherry(&["run", "--name", "user", "x.y/used:1"]).ok();
    let said = bed.wherry(&["rmi", "x.y/used:1"]).failed(1);
    assert!(said.contains("is used by user"), "{said}");
    bed.wherry(&["prune", "--all", "-y"]).ok();
    assert_eq!(listed(bed).len(), 1);
    // By force the image goes, and what the container stands on does not.
    bed.wherry(&["rmi", "-f", "x.y/used:1"]).ok();
    assert!(listed(bed).is_empty());
    assert_eq!(holdings(bed).snapshots.len(), 2);
    bed.wherry(&["rm", "user"]).ok();
    no_image_is_left(bed);
}

fn what_nothing_needs_is_counted_and_pruned(bed: &mut Bed) {
    let archive = in_file(bed, "a.tar", &simple("x.y/a:1", &json!({})).tar());
    bed.wherry(&["import", &archive]).ok();
    let row = |bed: &Bed| -> Value {
        let all: Value =
            serde_json::from_str(&bed.wherry(&["df", "--format", "json"]).ok()).unwrap();
        let rows = all["namespaces"].as_array().unwrap();
        rows.iter()
            .find(|row| row["namespace"] == bed.namespace.as_str())
            .unwrap()
            .clone()
    };
    let first = row(bed);
    assert_eq!(
        (&first["images"], &first["blobs"], &first["snapshots"]),
        (&json!(1), &json!(3), &json!(1))
    );
    let all = first["blob_bytes"].as_u64().unwrap() + first["snapshot_bytes"].as_u64().unwrap();
    assert_eq!(first["reclaimable_bytes"], json!(all));
    let table = bed.wherry(&["df"]).ok();
    assert!(
        table.contains("(all)") && table.contains("RECLAIMABLE"),
        "{table}"
    );

    let expired = "containerd.io/gc.expire=2001-01-01T00:00:00Z";
    bed.ctr(&["leases", "create", "--id", "old", expired]);
    let said = bed.wherry(&["prune", "--all"]).failed(1);
    assert!(said.contains("x.y/a:1") && said.contains("-y"), "{said}");
    assert_eq!(listed(bed).len(), 1);
    // Without --all the image stays.
    assert!(bed.wherry(&["prune"]).ok().contains("freed 0 B"));
    assert_eq!(listed(bed).len(), 1);
    let said = bed.wherry(&["prune", "--all", "-y"]).ok();
    assert!(
        said.contains("removed x.y/a:1") && said.contains("MiB"),
        "{said}"
    );
    no_image_is_left(bed);
    // An upload that nobody ends is counted.
    let mut command = Command::new("ctr");
    let content = ["content", "ingest", "--expected-size", "100000", "half"];
    command
        .arg("-a")
        .arg(bed.address())
        .args(["-n", &bed.namespace])
        .args(content);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(&[7; 70_000]).unwrap();
    eventually("the upload is counted", || row(bed)["uploads"] == 1);
    drop(stdin);
    running.end();
}

fn an_interrupted_import_leaves_no_lease(bed: &mut Bed) {
    let tar = simple("x.y/a:1", &json!({})).tar();
    let mut command = bed.command();
    let mut running = Running::start(command.args(["import", "-"]).stdin(Stdio::piped()));
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(&tar[..tar.len() - 100_000]).unwrap();
    eventually("it has begun", || holdings(bed).leases == 1);
    let pid = running.child.id().to_string();
    run(Command::new("kill").args(["-INT", &pid])).ok();
    let ended = running.end();
    assert!(ended.stderr.contains("interrupted"), "{ended:?}");
    assert_eq!(ended.code, Some(1));
    drop(stdin);
    no_image_is_left(bed);
}

fn an_image_without_layers_can_be_had(bed: &mut Bed) {
    let mut layout = Layout::new();
    let config = json!({
        "os": "linux", "architecture": architecture(), "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let config = layout.blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
    let manifest = layout.blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    layout.name("x.y/empty:1", manifest);
    let archive = in_file(bed, "a.tar", &layout.tar());
    bed.wherry(&["import", &archive]).ok();
    let said = bed.wherry(&["run", "--rm", "x.y/empty:1"]).failed(125);
    assert!(said.contains("does not say which command"), "{said}");
    bed.wherry(&["run", "--rm", "x.y/empty:1", "sh"])
        .failed(127);
    assert_eq!(settled(bed).snapshots.len(), 0);
}
