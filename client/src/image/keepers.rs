//! Which images are in use, so that no pruning takes them.

use std::collections::BTreeSet;

use core_api::images::Image;

use super::inventory::Inventory;

/// By this label the kubelet's images say that they are to stay.
const PINNED: &str = "io.cri-containerd.pinned";

/// What makes an image one to keep.
#[derive(Debug)]
pub(crate) struct Keepers {
    names: BTreeSet<String>,
    digests: BTreeSet<String>,
}

/// The images that containers use, by any of their names.
pub(crate) fn of(inventory: &Inventory) -> Keepers {
    let containers = inventory.containers.iter();
    let names: BTreeSet<String> = containers
        .map(|container| container.image.clone())
        .collect();
    let used = inventory
        .images
        .iter()
        .filter(|image| names.contains(&image.name));
    let digests = used
        .filter_map(|image| image.target.as_ref())
        .map(|target| target.digest.clone());
    let digests = digests.collect();
    Keepers { names, digests }
}

impl Keepers {
    /// Whether an image is to stay.
    pub(crate) fn keep(&self, image: &Image) -> bool {
        let digest = image
            .target
            .as_ref()
            .map_or("", |target| target.digest.as_str());
        self.names.contains(&image.name)
            || self.digests.contains(digest)
            || image.labels.contains_key(PINNED)
    }
}
