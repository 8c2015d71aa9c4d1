//! `ctr images`, `content`, `snapshots` and `leases`: Debian's `ctr` says the same of our daemon as
//! of Debian's containerd, and runs images by their names. Needs root.
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

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::run;
use made::by_umoci;
use pair::{Mounted, Pair, SIDES};
use registry::{Registry, forgetful};

/// Both daemons, and an archive of the image `img:one` of three layers.
fn with_archive() -> (Pair, tempfile::TempDir, String) {
    let pair = Pair::new();
    let dir = tempfile::tempdir().unwrap();
    let layout = by_umoci(dir.path());
    let tar = dir.path().join("image.tar");
    let to = format!("oci-archive:{}:one", tar.display());
    let from = format!("oci:{}:one", layout.display());
    run(forgetful("skopeo").args(["copy", "--quiet", &from, &to])).ok();
    (pair, dir, tar.to_str().unwrap().to_owned())
}

const IMPORT: [&str; 4] = ["images", "import", "--base-name", "img"];

/// What an index or manifest names, by the words of `ctr content get`.
fn digests(json: &str) -> Vec<String> {
    let parts = json.split("sha256:").skip(1);
    parts
        .map(|part| format!("sha256:{}", &part[..64]))
        .collect()
}

#[test]
fn images_from_import_to_removal() {
    let (pair, dir, tar) = with_archive();
    let import = [&IMPORT[..], &[&tar]].concat();
    pair.both(&import);
    for arguments in [
        &["images", "ls"][..],
        &["images", "ls", "-q"],
        &["images", "ls", "name==img:one"],
        &["images", "ls", "name~=nothing"],
        &["images", "check"],
        &["images", "check", "-q"],
        &["images", "check", "--snapshotter", "native"],
        &["images", "tag", "img:one", "img:two"],
        &["images", "tag", "img:one", "img:two"],
        &["images", "tag", "--force", "img:one", "img:two"],
        &["images", "tag", "nothing", "img:three"],
        &["images", "label", "img:two", "a=b", "c=d"],
        &["images", "label", "img:two", "a="],
        &["images", "label", "--replace-all", "img:two", "e=f"],
        &["images", "label", "nothing", "e=f"],
        &["images", "ls"],
        &["images", "convert", "--uncompress", "img:one", "img:plain"],
        &["images", "ls", "-q"],
    ] {
        pair.same(arguments);
    }
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let listings = SIDES.map(|side| {
        pair.one(
            side,
            &["images", "export", &out("out.tar"), "img:one", "img:plain"],
        )
        .ok();
        let listing = run(Command::new("tar").args(["-tf", &out("out.tar")])).ok();
        let index = run(Command::new("tar").args(["-xOf", &out("out.tar"), "index.json"])).ok();
        (listing, digests(&index))
    });
    assert_eq!(listings[0], listings[1]);
    pair.same(&["images", "export", &out("none.tar"), "nothing"]);

    // What was exported by one goes into the other.
    pair.same(&["images", "rm", "--sync", "img:one", "img:two", "img:plain"]);
    pair.same(&["images", "rm", "img:one"]);
    assert_eq!(pair.same(&["content", "ls", "-q"]).stdout, "");
    assert_eq!(pair.same(&["snapshots", "ls"]).stdout.lines().count(), 1);
    pair.both(&[
        "images",
        "import",
        "--snapshotter",
        "native",
        "--no-unpack",
        &out("out.tar"),
    ]);
    pair.same(&["images", "ls"]);
    pair.same(&["images", "check", "--snapshotter", "native"]);
    fs::write(out("broken.tar"), vec![7; 4096]).unwrap();
    let broken = pair.same(&["images", "import", &out("broken.tar")]);
    assert_ne!(broken.code, Some(0));
}

#[test]
fn images_are_mounted_and_let_go() {
    let (pair, dir, tar) = with_archive();
    pair.both(&[&IMPORT[..], &[&tar]].concat());
    let place = dir.path().join("mnt");
    fs::create_dir(&place).unwrap();
    let at = place.to_str().unwrap();
    for side in SIDES {
        let ctr = |arguments: &[&str]| pair.one(side, arguments);
        let mounted = Mounted(place.clone());
        ctr(&["images", "mount", "img:one", at]).ok();
        assert_eq!(
            fs::read_to_string(place.join("opaque/third")).unwrap(),
            "third"
        );
        fs::write(place.join("new"), "").expect_err("it is only for reading");
        ctr(&["images", "unmount", "--rm", at]).ok();
        ctr(&["images", "mount", "--rw", "img:one", at]).ok();
        fs::write(place.join("new"), "").unwrap();
        let keys = ctr(&["snapshots", "ls"]).ok();
        assert!(keys.contains(at) && keys.contains("Active"), "{keys}");
        ctr(&["images", "unmount", at]).ok();
        assert!(!place.join("bin").exists());
        assert!(ctr(&["snapshots", "ls"]).ok().contains(at), "it is kept");
        ctr(&["images", "unmount", "--rm", at]).ok();
        assert!(!ctr(&["snapshots", "ls"]).ok().contains(at));
        drop(mounted);
    }
    pair.same(&["images", "mount", "nothing", at]);
    pair.same(&["images", "unmount", "--rm", at]);
    pair.same(&["leases", "ls", "-q"]);
}

#[test]
fn images_are_run_by_name_from_both_snapshotters() {
    let (pair, _dir, tar) = with_archive();
    let import = [&IMPORT[..], &[&tar]].concat();
    pair.both(&import);
    pair.both(&[&import[..3], &["img", "--snapshotter", "native", &tar]].concat());
    let script = "cat /opaque/third && echo mine > /opaque/third && cat /opaque/third && exit 3";
    let script = script.replace("cat", "busybox cat");
    for snapshotter in ["overlayfs", "native"] {
        let run = [
            "run",
            "--rm",
            "--snapshotter",
            snapshotter,
            "img:one",
            "r1",
            "sh",
            "-c",
            &script,
        ];
        for _ in 0..2 {
            let ran = pair.same(&run);
            assert_eq!(
                (ran.code, ran.stdout.as_str()),
                (Some(3), "thirdmine\n"),
                "{ran:?}"
            );
        }
        let read_only = ["run", "--rm", "--read-only", "--snapshotter", snapshotter];
        let ran = pair.same(&[&read_only[..], &["img:one", "r2", "sh", "-c", "> /new"]].concat());
        assert!(ran.stderr.contains("Read-only"), "{ran:?}");
    }
    pair.same(&["run", "--rm", "nothing", "r3", "sh"]);
    for ran in pair.both_fail(&["run", "--rm", "img:one", "r4", "/nothing"]) {
        assert!(ran.stderr.contains("no such file"), "{ran:?}");
    }
    assert_eq!(pair.same(&["c", "ls", "-q"]).stdout, "");

    // One that lives holds what it stands on. One side after the other: runc knows both.
    for side in SIDES {
        let ctr = |arguments: &[&str]| pair.one(side, arguments).ok();
        let script = "while :; do busybox sleep 1; done";
        ctr(&["run", "-d", "img:one", "r5", "sh", "-c", script]);
        ctr(&["images", "rm", "--sync", "img:one"]);
        assert_eq!(ctr(&["content", "ls", "-q"]), "");
        // What is in use, and the three that it stands on.
        assert_eq!(ctr(&["snapshots", "ls"]).lines().count(), 5);
        let cat = ["busybox", "cat", "/opaque/third"];
        let exec = ctr(&[&["task", "exec", "--exec-id", "e", "r5"][..], &cat].concat());
        assert_eq!(exec, "third");
        pair.one(side, &["task", "rm", "-f", "r5"]);
        ctr(&["c", "rm", "r5"]);
        ctr(&["leases", "create", "--id", "l"]);
        ctr(&["leases", "rm", "--sync", "l"]);
        for snapshotter in ["overlayfs", "native"] {
            let left = ctr(&["snapshots", "--snapshotter", snapshotter, "ls"]);
            assert_eq!(left.lines().count(), 1, "{left}");
        }
    }
}

#[test]
fn content_is_fetched_read_edited_and_removed() {
    let (pair, registry) = (Pair::new(), Registry::new());
    let dir = tempfile::tempdir().unwrap();
    let layout = by_umoci(dir.path());
    registry.fill(&format!("oci:{}:one", layout.display()), "image:1", &[]);
    let image = registry.name("image:1");
    pair.both(&["content", "fetch", "--plain-http", &image]);
    pair.same(&["images", "ls"]);
    pair.same(&["images", "check"]);
    let all = pair.same(&["content", "ls", "-q"]).stdout;
    assert_eq!(all.lines().count(), 5, "{all}");
    pair.same(&["content", "ls"]);
    let manifest = all
        .lines()
        .find(|digest| pair.both(&["content", "get", digest])[0].contains("\"layers\""))
        .unwrap();
    let parts = digests(&pair.same(&["content", "get", manifest]).stdout);
    let object = ["content", "fetch-object", "--plain-http"];
    pair.same(&[&object[..], &[&image, &parts[0]]].concat());
    for arguments in [
        &["content", "ls", &format!("digest=={manifest}")][..],
        &["content", "ls", "labels.nothing"],
        &["content", "get", "sha256:0000"],
        &["content", "get", &format!("sha256:{}", "0".repeat(64))],
        &["content", "label", &parts[0], "a=b", "c=d"],
        &["content", "label", &parts[0], "a="],
        &[
            "content",
            "label",
            &format!("sha256:{}", "0".repeat(64)),
            "a=b",
        ],
        &["content", "ls"],
        &["content", "rm", &parts[0]],
        &["content", "rm", &parts[0]],
        &["content", "rm", "nonsense"],
        &["images", "check"],
        &["content", "active"],
        &["content", "prune", "references"],
        &["content", "ls"],
    ] {
        pair.same(arguments);
    }
    let said = SIDES.map(|side| {
        let script = |words: &str| {
            let mut command = Command::new("sh");
            command
                .args(["-c", words, "sh"])
                .arg(pair.dir(side).join("s.sock"));
            let ran = run(command
                .env("EDITOR", "sed -i s/ne/ew/")
                .arg(&pair.namespace));
            (ran.code, ran.stdout, ran.stderr)
        };
        let sum = |text: &str| {
            let hash = <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
            hash.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let (one, oew) = (sum("one"), sum("oew"));
        vec![
            script("printf one | ctr -a $1 -n $2 content ingest --expected-size 3 r1"),
            script("printf two | ctr -a $1 -n $2 content ingest --expected-size 4 r2"),
            script("ctr -a $1 -n $2 content active | cut -f1-2"),
            script(&format!(
                "printf one | ctr -a $1 -n $2 content ingest --expected-digest sha256:{oew} r3"
            )),
            script(&format!(
                "ctr -a $1 -n $2 content label sha256:{one} containerd.io/gc.root=x"
            )),
            script(&format!(
                "ctr -a $1 -n $2 content edit --validate sha256 sha256:{one}"
            )),
            script(&format!("ctr -a $1 -n $2 content edit sha256:{one}")),
            script(&format!("ctr -a $1 -n $2 content get sha256:{oew}")),
        ]
    });
    assert_eq!(said[0].len(), said[1].len());
    for (ours, theirs) in said[0].iter().zip(&said[1]) {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn snapshots_are_prepared_committed_compared_and_removed() {
    let (pair, dir, tar) = with_archive();
    let import = |more: &[&str]| pair.both(&[&IMPORT[..], more, &[&tar]].concat());
    import(&["--no-unpack"]);
    let manifest = pair.same(&["images", "ls"]).stdout;
    let manifest = &digests(&manifest)[0];
    let place = dir.path().join("mnt");
    fs::create_dir(&place).unwrap();
    for snapshotter in ["overlayfs", "native"] {
        let words = |words: &[&str]| -> Vec<String> {
            let prefix = ["snapshots", "--snapshotter", snapshotter];
            prefix
                .iter()
                .chain(words)
                .map(|word| (*word).to_owned())
                .collect()
        };
        let same = |more: &[&str]| {
            let words = words(more);
            pair.same(&words.iter().map(String::as_str).collect::<Vec<_>>())
        };
        same(&["unpack", manifest]);
        // Once more, by which they are held.
        import(&["--snapshotter", snapshotter]);
        let listing = same(&["ls"]).stdout;
        let rows: Vec<Vec<&str>> = listing
            .lines()
            .skip(1)
            .map(|row| row.split(' ').collect())
            .collect();
        assert_eq!(rows.len(), 3, "{listing}");
        let is_parent = |key: &str| rows.iter().any(|row| row[1] == key);
        let top = rows
            .iter()
            .map(|row| row[0])
            .find(|key| !is_parent(key))
            .unwrap();
        for arguments in [
            &["prepare", "work", top][..],
            &["prepare", "work", top],
            &["prepare", "other", "nothing"],
            &["view", "view", top],
            &["ls"],
            &["tree"],
            &["info", "work"],
            &["info", "nothing"],
            &["mounts", place.to_str().unwrap(), "work"],
            &["mounts", place.to_str().unwrap(), "view"],
            &["mounts", place.to_str().unwrap(), "nothing"],
            &["label", "work", "a=b"],
            &["label", "work", "a="],
            &["label", "nothing", "a=b"],
            // Nothing else holds it.
            &["label", "view", "containerd.io/gc.root=x"],
            &["rm", top],
            &["commit", "done", "nothing"],
        ] {
            same(arguments);
        }
        for side in SIDES {
            let ctr = |more: &[&str]| {
                let words = words(more);
                pair.one(side, &words.iter().map(String::as_str).collect::<Vec<_>>())
                    .ok()
            };
            let mount = ctr(&["mounts", place.to_str().unwrap(), "work"]);
            let mounted = Mounted(place.clone());
            run(Command::new("sh").args(["-c", &mount])).ok();
            fs::write(place.join("new"), "new").unwrap();
            fs::remove_file(place.join("opaque/third")).unwrap();
            drop(mounted);
        }
        let listings = SIDES.map(|side| {
            let out: PathBuf = pair.dir(side).join("diff.tar.gz");
            let address = pair.dir(side).join("s.sock");
            let script = "ctr -a $1 -n $2 snapshots --snapshotter $3 diff work > $4 && tar -tzvf $4 --full-time";
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(address).args([&pair.namespace, snapshotter]);
            let listing = run(command.arg(out)).ok();
            let names = listing.lines().map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                (words[0].to_owned(), words[1].to_owned(), words[5].to_owned())
            });
            names.collect::<Vec<_>>()
        });
        assert_eq!(listings[0], listings[1]);
        for arguments in [
            &["commit", "done", "work"][..],
            &["commit", "done", "work"],
            &["usage", "done"],
            &["usage", "-b", "done"],
            &["usage", "nothing"],
            &["prepare", "on", "done"],
            &["tree"],
            &["rm", "done"],
            &["rm", "on", "done"],
            &["rm", "done"],
            &["rm", "view"],
            &["rm", "view"],
            &["ls"],
        ] {
            same(arguments);
        }
    }
    pair.same(&["snapshots", "--snapshotter", "nothing", "ls"]);
}

#[test]
fn leases_are_made_listed_and_removed() {
    let pair = Pair::new();
    for arguments in [
        &["leases", "create", "--id", "one"][..],
        &["leases", "create", "--id", "one"],
        &["leases", "create", "--id", "two", "--expires", "1h", "a=b"],
        &["leases", "create", "--id", "three", "--expires", "0", "a=c"],
        &["leases", "ls", "-q"],
        &["leases", "ls"],
        &["leases", "ls", "-q", "labels.a==b"],
        &["leases", "ls", "-q", "id==one"],
        &["leases", "rm", "one"],
        &["leases", "rm", "one"],
        &["leases", "rm", "--sync", "two", "three"],
        &["leases", "ls"],
    ] {
        pair.same(arguments);
    }
    for kind in ["leases", "images", "content"] {
        for ran in pair.both_fail(&[kind, "ls", "nonsense="]) {
            assert!(ran.stderr.contains("filter"), "{ran:?}");
        }
    }
}
