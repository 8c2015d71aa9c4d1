//! Images listed, named, used and removed by `wherry`, under wherryd and under Debian's containerd.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests run programs, and end where something is not as it must be"
)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::images::{Layout, architecture, holdings, in_file, listed, no_image_is_left, simple};
use common::{Bed, Running, eventually, on_both_engines};
use serde_json::{Value, json};

on_both_engines! {
    images_are_listed_tagged_and_removed
    an_image_in_use_stays
    what_nothing_needs_is_counted_and_pruned
    an_image_without_layers_can_be_had
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
    bed.ctr(&[
        "leases",
        "create",
        "--expires",
        "0s",
        "--id",
        "old",
        expired,
    ]);
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
    assert_eq!(holdings(bed).snapshots.len(), 0);
}
