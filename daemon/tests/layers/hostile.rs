//! Archives that lead out of their target or are none.

use std::fs::{self, File};
use std::io::Write;

use daemon::diff::apply::{apply, apply_blob};
use daemon::diff::fault::Fault;
use daemon::diff::media::Reading;
use tar::EntryType;
use tempfile::TempDir;

use crate::tree::describe;
use crate::{Made, archive, entry, guarded, link, plain};

#[test]
fn hostile_archives_are_refused_with_the_entry_named_and_leave_nothing() {
    use EntryType::{Link, Regular, Symlink, XHeader};
    let long = "7/".repeat(20);
    let pax = format!("{} path=x\n", 10 + (1 << 21));
    for (what, entries, says) in [
        ("a name up", vec![entry("a/../../x")], "leads out"),
        ("a rooted name up", vec![entry("/../x")], "leads out"),
        (
            "a folder that is a symlink up",
            vec![link(Symlink, "s", "../outside"), entry("s/secret")],
            "leads out",
        ),
        (
            "a symlink through a symlink up",
            vec![
                link(Symlink, "a", "."),
                link(Symlink, "s", "a/../../outside"),
                entry("s/new"),
            ],
            "leads out",
        ),
        (
            "a hard link up",
            vec![link(Link, "h", "../outside/secret")],
            "hard link",
        ),
        (
            "a hard link through a symlink up",
            vec![
                link(Symlink, "s", "../outside"),
                link(Link, "h", "s/secret"),
            ],
            "hard link",
        ),
        (
            "a hard link to nothing",
            vec![link(Link, "h", "none")],
            "not there",
        ),
        (
            "a hard link to the root",
            vec![link(Link, "h", "/")],
            "hard link",
        ),
        (
            "a whiteout of the parent",
            vec![entry("a/.wh...")],
            "whiteout",
        ),
        ("a whiteout of nothing", vec![entry(".wh.")], "whiteout"),
        (
            "a circle",
            vec![link(Symlink, "s", "s"), entry("s/x")],
            "too many symlinks",
        ),
        (
            "a file as a folder",
            vec![entry("f"), entry("f/x")],
            "not a folder",
        ),
        (
            "an unknown type",
            vec![link(EntryType::new(b'M'), "m", "")],
            "type",
        ),
        (
            "long records",
            vec![Made {
                name: "x",
                kind: XHeader,
                link: "",
                data: &vec![0; (1 << 20) + 1],
            }],
            "more than 1 MiB",
        ),
        (
            "records that lie about their length",
            vec![Made {
                name: "x",
                kind: XHeader,
                link: "",
                data: pax.as_bytes(),
            }],
            "PAX",
        ),
        (
            "many records before one entry",
            (0..2100)
                .map(|_| Made {
                    name: "x",
                    kind: XHeader,
                    link: "",
                    data: b"10 path=x\n",
                })
                .collect(),
            "more than 1 MiB",
        ),
        (
            "deep",
            vec![
                entry(&long),
                Made {
                    kind: Regular,
                    ..entry("../x")
                },
            ],
            "leads out",
        ),
    ] {
        let (dir, target) = guarded();
        let before = describe(dir.path(), false);
        let fault = apply(&archive(&entries)[..], &plain(&target), 0).expect_err(what);
        assert!(matches!(fault, Fault::Layer(_)), "{what}: {fault:?}");
        assert!(fault.to_string().contains(says), "{what}: {fault}");
        assert_eq!(
            describe(dir.path(), false).len(),
            before.len(),
            "{what}: something is left"
        );
        let secret = fs::read_to_string(dir.path().join("outside/secret")).unwrap();
        assert_eq!(secret, "secret", "{what}");
    }
}

#[test]
fn absolute_symlinks_mean_the_target_as_they_will_in_a_container() {
    let (dir, target) = guarded();
    let outside = dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    let entries = [
        link(EntryType::Symlink, "s", outside),
        entry("s/secret"),
        link(EntryType::Symlink, "run", "/var/run"),
        entry("run/pid"),
        entry("/rooted"),
    ];
    apply(&archive(&entries)[..], &plain(&target), 0).unwrap();
    let inside = target.join(outside.trim_start_matches('/')).join("secret");
    assert_eq!(fs::read(inside).unwrap(), b"data");
    assert_eq!(fs::read(target.join("var/run/pid")).unwrap(), b"data");
    assert_eq!(fs::read(target.join("rooted")).unwrap(), b"data");
    assert_eq!(
        fs::read(dir.path().join("outside/secret")).unwrap(),
        b"secret"
    );
}

#[test]
fn broken_archives_are_named_as_such() {
    let good = archive(&[entry("a"), entry("b")]);
    let mut checksum = good.clone();
    checksum[0] = b'x';
    let mut hole = good.clone();
    hole[1024..1536].fill(0);
    for (what, bytes) in [
        ("checksum", &checksum[..]),
        ("a header cut short", &good[..700 + 1024]),
        ("data cut short", &good[..600]),
        ("an empty block", &hole),
    ] {
        let (_dir, target) = guarded();
        let fault = apply(bytes, &plain(&target), 0).expect_err(what);
        assert!(matches!(fault, Fault::Layer(_)), "{what}: {fault:?}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{what}");
    }
    // No end at all is as good as one, and what follows the end does not count.
    let (_dir, target) = guarded();
    apply(&good[..2048], &plain(&target), 0).unwrap();
    apply(&[&good[..], b"more"].concat()[..], &plain(&target), 0).unwrap();
    apply(&[][..], &plain(&target), 0).unwrap();
}

#[test]
fn a_layer_that_proves_broken_after_its_last_entry_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let (blob, to) = (dir.path().join("blob"), dir.path().join("to"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive(&[entry("a"), entry("b/c")]))
        .unwrap();
    let mut bytes = gzip.finish().unwrap();
    // The checksum is before the length, at the very end.
    let at = bytes.len() - 8;
    bytes[at] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    fs::create_dir(&to).unwrap();
    let fault = apply_blob(File::open(&blob).unwrap(), Reading::Sniff, &plain(&to), 0).unwrap_err();
    assert!(fault.to_string().contains("checksum"), "{fault}");
    assert_eq!(describe(&to, false).len(), 0);
}
