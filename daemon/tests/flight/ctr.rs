//! The same with `ctr`.

use std::fs;
use std::path::Path;

use crate::common::{Background, Bed, eventually, quietly, those_that_end_well};
use crate::{Layer, bed, counts};

/// An image of two layers as `docker save` writes it.
fn archive(size: usize) -> Vec<u8> {
    let mut image = tar::Builder::new(Vec::new());
    let mut add = |name: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        image.append_data(&mut header, name, data).unwrap();
    };
    let layers = [Layer::new("one", size), Layer::new("two", size)];
    for (number, layer) in layers.iter().enumerate() {
        add(&format!("{number}.tar"), &layer.blob);
    }
    let [one, two] = layers.map(|layer| layer.diff);
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{one}\",\"{two}\"]}}}}"
    );
    add("config.json", config.as_bytes());
    let manifest = "[{\"Config\":\"config.json\",\"RepoTags\":[\"test/image:1\"],\
                    \"Layers\":[\"0.tar\",\"1.tar\"]}]";
    add("manifest.json", manifest.as_bytes());
    image.into_inner().unwrap()
}

/// Imports the image without unpacking it: those who make one name at once may be told that it
/// exists, by containerd as well.
fn named(bed: &Bed, path: &Path) {
    let path = path.to_str().unwrap();
    bed.ctr(&["images", "import", "--no-unpack", path]).ok();
}

#[test]
fn ctr_imports_at_once_unpack_each_layer_once() {
    let (bed, metrics) = bed();
    let path = bed.dir.path().join("image.tar");
    fs::write(&path, archive(1 << 20)).unwrap();
    named(&bed, &path);
    let clients = (0..4).map(|number| {
        let mut ctr = bed.ctr_command();
        ctr.args(["images", "import"]).arg(&path);
        (number.to_string(), quietly(&mut ctr))
    });
    let clients = clients.collect();
    assert_eq!(those_that_end_well(clients), ["0", "1", "2", "3"]);
    assert_eq!(counts(&metrics).0, 2);
    let check = bed.ctr(&["images", "check"]).ok();
    assert!(check.contains("complete (3/3)"), "{check}");
    let listed = bed.ctr(&["snapshots", "ls"]).ok();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(!listed.contains("extract-"), "{listed}");
}

#[test]
fn a_ctr_that_is_killed_midway_leaves_the_image_to_the_other() {
    let (bed, _) = bed();
    let path = bed.dir.path().join("image.tar");
    fs::write(&path, archive(768 << 10)).unwrap();
    named(&bed, &path);
    let import = || {
        let mut ctr = bed.ctr_command();
        quietly(ctr.args(["images", "import"]).arg(&path))
    };
    let mut first = Background::of(import());
    let snapshots = "root/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs";
    let tree = bed.dir.path().join(snapshots);
    eventually("it unpacks", || {
        fs::read_dir(&tree).is_ok_and(|mut tree| tree.next().is_some())
    });
    let other = import();
    first.stop();
    let ended = those_that_end_well(vec![("other".to_owned(), other)]);
    assert_eq!(ended, ["other"]);
    let check = bed.ctr(&["images", "check"]).ok();
    assert!(check.contains("complete (3/3)"), "{check}");
    bed.ctr(&["images", "rm", "--sync", "docker.io/test/image:1"])
        .ok();
}
