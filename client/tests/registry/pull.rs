//! What a pull brings, and for which platform.

use std::process::Command;

use crate::common::{Bed, on_both_engines, run};
use crate::proxy::Proxy;
use crate::server::{Layout, Server};

on_both_engines! {
    a_pull_brings_what_skopeo_sent
    a_platform_is_chosen_and_others_can_be_added
}

/// Debian's `ctr` on a bed's daemon.
#[track_caller]
pub fn ctr(bed: &Bed, arguments: &[&str]) -> String {
    let mut command = Command::new("ctr");
    command
        .arg("-a")
        .arg(bed.address())
        .args(["-n", &bed.namespace]);
    run(command.args(arguments)).ok()
}

/// The digests of all blobs.
#[track_caller]
pub fn blobs(bed: &Bed) -> Vec<String> {
    let mut all: Vec<String> = ctr(bed, &["content", "ls", "-q"])
        .lines()
        .map(str::to_owned)
        .collect();
    all.sort();
    all
}

/// Fails where something is left that keeps what no image keeps.
#[track_caller]
pub fn no_leases(bed: &Bed) {
    assert_eq!(ctr(bed, &["leases", "ls", "-q"]), "");
}

fn a_pull_brings_what_skopeo_sent(bed: &mut Bed) {
    let (server, layout) = (Server::new(), Layout::new(100_000));
    let digest = server.fill(&layout, "app", "team/app:1");
    let name = format!("{}/team/app:1", server.host());
    let ran = bed.wherry(&["pull", &name]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stdout, format!("{name}@{digest}\n"));
    assert_eq!(
        ran.stderr.matches(": loaded, ").count(),
        2,
        "{}",
        ran.stderr
    );
    assert_eq!(
        ran.stderr.matches(": unpacked").count(),
        2,
        "{}",
        ran.stderr
    );

    let manifest = server.manifest("team/app:1");
    let mut wanted = vec![digest.clone()];
    let parts = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .chain([&manifest["config"]]);
    wanted.extend(parts.map(|part| part["digest"].as_str().unwrap().to_owned()));
    wanted.sort();
    assert_eq!(blobs(bed), wanted);
    let check = ctr(bed, &["images", "check"]);
    assert!(
        check.contains("complete (3/3)") && check.trim_end().ends_with("true"),
        "{check}"
    );
    let labels = ctr(bed, &["content", "ls"]);
    let source = format!(
        "containerd.io/distribution.source.{}=team/app",
        server.host()
    );
    assert_eq!(labels.matches(&source).count(), 4, "{labels}");
    no_leases(bed);
    let ran = ctr(
        bed,
        &[
            "run",
            "--rm",
            "--net-host",
            &name,
            "r",
            "/bin/busybox",
            "ls",
            "/",
        ],
    );
    assert!(ran.lines().any(|line| line == "random"), "{ran}");

    // Nothing is fetched twice, and from then on nothing but the manifest's digest is asked for.
    let proxy = Proxy::new(server.port);
    let again = format!("{}/team/app:1", proxy.host());
    let ran = bed.wherry(&["pull", "--quiet", &again]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout, format!("{again}@{digest}\n"));
    let asked: Vec<String> = proxy
        .take_seen()
        .into_iter()
        .map(|seen| seen.method)
        .collect();
    assert_eq!(asked, ["HEAD"]);

    let pinned = format!("{}/team/app@{digest}", server.host());
    let ran = bed.wherry(&["pull", "--no-unpack", &pinned]);
    assert_eq!(ran.ok(), format!("{pinned}\n"));
    no_leases(bed);
}

fn a_platform_is_chosen_and_others_can_be_added(bed: &mut Bed) {
    let (server, layout) = (Server::new(), Layout::new(1000));
    let digest = server.put_index(&layout);
    let name = format!("{}/multi:1", server.host());
    assert_eq!(
        bed.wherry(&["pull", &name]).ok(),
        format!("{name}@{digest}\n")
    );
    let native = blobs(bed);
    // The index, a manifest, a configuration and two layers.
    assert_eq!(native.len(), 5, "{native:?}");

    let said = bed.wherry(&["push", &name]).failed(1);
    assert!(said.contains("is not here"), "{said}");
    assert!(said.contains("wherry pull --all-platforms"), "{said}");
    let said = bed
        .wherry(&["pull", "--platform", "linux/riscv64", &name])
        .failed(1);
    assert!(said.contains("nothing for linux/riscv64"), "{said}");
    assert!(said.contains("linux/amd64, linux/arm64"), "{said}");
    let alone = format!("{}/multi:amd64", server.host());
    let said = bed
        .wherry(&["pull", "--platform", "linux/arm64", &alone])
        .failed(1);
    assert!(
        said.contains("is for linux/amd64, and linux/arm64 was asked for"),
        "{said}"
    );

    // The layers are the same for both.
    bed.wherry(&["pull", "--platform", "linux/arm64", &name])
        .ok();
    assert_eq!(blobs(bed).len(), 7);
    let check = ctr(bed, &["images", "check", &format!("name=={name}")]);
    assert!(check.contains("complete"), "{check}");
    bed.wherry(&["pull", "--all-platforms", &name]).ok();
    assert_eq!(blobs(bed).len(), 7);
    let copy = format!("{}/copy:1", server.host());
    assert_eq!(
        bed.wherry(&["push", &name, &copy]).ok(),
        format!("{copy}@{digest}\n")
    );
    assert_eq!(server.digest("copy:1"), digest);
    no_leases(bed);
}
