//! Root filesystems for containers with a user namespace: `uidmap=` and `gidmap=` let the
//! container see files of root as its own, without a change on the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::Mount;
use serde_json::json;
use wherry_integration::prelude::*;

/// The host's id that is root in the container, and how many follow.
const FIRST: u32 = 100_000;
const MAP: [&str; 2] = ["uidmap=0:100000:65536", "gidmap=0:100000:65536"];

fn mount(kind: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::new();
    mount.type_ = kind.to_owned();
    mount.source = source.display().to_string();
    mount.options = options.iter().map(|&o| o.to_owned()).collect();
    mount
}

/// Why id mappings do not work in the folder of the tests; nothing where they do.
fn unmapped() -> Option<&'static str> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut before = |version: (u32, u32)| (next(), next()) < version;
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let folder = std::env::temp_dir().canonicalize().unwrap();
    let kind = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| folder.starts_with(fields[1]))
        .max_by_key(|fields| fields[1].len())
        .map(|fields| fields[2].to_owned());
    (kind.as_deref() == Some("tmpfs") && before((6, 3)))
        .then_some("a tmpfs takes id mappings from Linux 6.3 on")
}

/// A container with a user namespace.
fn mapped(script: &str) -> Spec {
    let map = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
    let mut spec = Spec::sh(script)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let mut namespaces = spec.json()["linux"]["namespaces"].clone();
    namespaces
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    spec = spec.set("/linux/namespaces", namespaces);
    spec
}

/// A bundle with an empty root filesystem, its shim, and the layer to be mounted there.
fn with_layer(bed: &Bed, spec: &Spec) -> (Bundle, Shim, PathBuf) {
    // The runtime looks the root filesystem up as the container's root, a stranger on the host.
    fs::set_permissions(bed.dir(), fs::Permissions::from_mode(0o711)).unwrap();
    let mut bundle = bed.bundle("c1", spec);
    bundle.options.io_uid = FIRST;
    bundle.options.io_gid = FIRST;
    let layer = bed.path("layer");
    fs::rename(bundle.rootfs(), &layer).unwrap();
    fs::create_dir(bundle.rootfs()).unwrap();
    let shim = bed.start(&bundle);
    (bundle, shim, layer)
}

/// Runs the container over `rootfs`; its output and exit status.
fn run(bed: &Bed, bundle: &Bundle, shim: &Shim, rootfs: Mount) -> (String, u32) {
    let out = OutputFifo::read(&bed.fifo("out"));
    let mut request = bundle.create_with("", &out.path(), &bed.drain());
    request.rootfs.push(rootfs);
    shim.task
        .create(&request)
        .unwrap_or_else(|e| panic!("Create: {e}"));
    shim.task.start("c1", "").unwrap();
    let status = shim.task.wait("c1", "").unwrap().exit_status;
    out.wait_end(SHORT);
    (out.text(), status)
}

const LOOK: &str = "stat -c %u:%g / /bin/busybox && echo new > /made && stat -c %u:%g /made";

#[test]
fn a_bind_is_roots_in_the_container_and_unchanged_on_the_disk() {
    known_difference!("go", "idmapped root filesystems came with the 2.0 shim");
    skip_unless!(unmapped().is_none(), unmapped().unwrap_or_default());
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &mapped(LOOK));
    let rootfs = mount("bind", &layer, &["rbind", "rw", MAP[0], MAP[1]]);
    let (text, status) = run(&bed, &bundle, &shim, rootfs);
    assert_eq!((text.as_str(), status), ("0:0\n0:0\n0:0\n", 0));
    for path in ["", "bin/busybox", "made"] {
        let meta = fs::metadata(layer.join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{path:?} on the disk");
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn an_overlays_lower_layers_are_roots_in_the_container_and_unchanged_on_the_disk() {
    known_difference!("go", "idmapped root filesystems came with the 2.0 shim");
    skip_unless!(unmapped().is_none(), unmapped().unwrap_or_default());
    let bed = Bed::new();
    let script = format!("{LOOK} && stat -c %u:%g /below && chmod 600 /below");
    let (bundle, shim, layer) = with_layer(&bed, &mapped(&script));
    let below = bed.path("below");
    let (upper, work) = (bed.path("upper"), bed.path("work"));
    for dir in [&below, &upper, &work] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(below.join("below"), "").unwrap();
    // The snapshotter gives the upper layer to the container's root; the lower ones are shared.
    chown(&upper, Some(FIRST), Some(FIRST)).unwrap();
    chown(&work, Some(FIRST), Some(FIRST)).unwrap();
    let options = [
        format!("workdir={}", work.display()),
        format!("upperdir={}", upper.display()),
        format!("lowerdir={}:{}", layer.display(), below.display()),
        MAP[0].to_owned(),
        MAP[1].to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let rootfs = mount("overlay", Path::new("overlay"), &options);
    let (text, status) = run(&bed, &bundle, &shim, rootfs);
    assert_eq!((text.as_str(), status), ("0:0\n0:0\n0:0\n0:0\n", 0));
    for path in [layer.join("bin/busybox"), below.join("below")] {
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{}", path.display());
    }
    assert_eq!(
        fs::metadata(below.join("below")).unwrap().mode() & 0o777,
        0o644
    );
    assert_eq!(
        fs::metadata(upper.join("made")).unwrap().uid(),
        FIRST,
        "the upper layer is the container's own"
    );
    bed.finish(&bundle, &shim);
}

#[test]
fn a_mapping_that_is_none_is_refused_by_name_and_leaves_nothing() {
    known_difference!("go", "idmapped root filesystems came with the 2.0 shim");
    let bed = Bed::new();
    let (bundle, shim, layer) = with_layer(&bed, &mapped(LOOK));
    for bad in [
        &["rbind", "uidmap=0:100000", MAP[1]][..],
        &["rbind", MAP[0]][..],
        &["rbind", "uidmap=0:x:1", MAP[1]][..],
    ] {
        let mut request = bundle.create();
        request.rootfs.push(mount("bind", &layer, bad));
        let error = shim.task.create(&request).unwrap_err();
        assert!(error.message().contains("map"), "{bad:?}: {error}");
        assert!(host::mounts_below(bed.dir()).is_empty(), "{bad:?}");
    }
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}
