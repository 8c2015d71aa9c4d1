//! Images taken out of archives and put into them by `wherry`, under wherryd and under Debian's
//! containerd; what is left in the daemon is compared with what `ctr` leaves.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests run programs, and end where something is not as it must be"
)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use common::images::{
    self, Layout, architecture, busybox_layer, by_umoci, holdings, in_file, listed,
    no_image_is_left, packed, simple,
};
use common::{Bed, Running, eventually, on_both_engines, run};
use serde_json::{Value, json};

on_both_engines! {
    an_import_leaves_what_ctr_leaves
    a_docker_archive_is_taken_in_any_packing
    an_archive_without_names_asks_for_one
    an_index_is_taken_for_one_platform_or_all
    a_broken_archive_is_refused_and_leaves_nothing
    an_export_goes_round_and_others_read_it
    an_interrupted_import_leaves_no_lease
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
