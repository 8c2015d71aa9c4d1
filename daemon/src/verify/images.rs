//! Images: what each needs, from its target down to the layers, and what of it is not here.
//!
//! An index may have manifests of other platforms than ours, of which clients store nothing, or the
//! manifest and configuration alone: what is missing of those is no finding as long as something of
//! the image is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::blobs::{State, States};
use super::records::Records;
use super::report::{Report, some};
use super::{Parts, again};
use crate::content::digest::Digest;

/// The largest blob that is looked into, in bytes: manifests of more than 4 MiB no registry takes.
const LIMIT: u64 = 8 << 20;
/// How deep an index may be in another.
const DEPTH: usize = 8;

/// What is read of an index or a manifest.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Part>,
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The layer that makes a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// Its blob.
    pub(super) digest: Digest,
    /// Its media type.
    pub(super) media_type: String,
}

/// What is needed by whom.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Namespace and digest to the images that need the blob.
    blobs: BTreeMap<(String, Digest), BTreeSet<String>>,
    /// Namespace and chain ID to the layers that make the snapshot; the same layer may be there in
    /// more than one compression.
    layers: BTreeMap<(String, String), Vec<Layer>>,
    indexes: BTreeSet<Digest>,
}

impl Needs {
    /// Whether a blob is an index.
    pub(super) fn is_index(&self, digest: &Digest) -> bool {
        self.indexes.contains(digest)
    }

    /// The images of a namespace that need a blob.
    pub(super) fn images(&self, ns: &str, digest: &Digest) -> Vec<String> {
        let names = self.blobs.get(&(ns.to_owned(), *digest));
        names.into_iter().flatten().cloned().collect()
    }

    /// The images of any namespace that need a blob, each with its namespace.
    pub(super) fn images_of(&self, digest: &Digest) -> Vec<String> {
        let of = |((ns, blob), names): (&(String, Digest), &BTreeSet<String>)| {
            let names = names.iter().filter(|_| blob == digest);
            names
                .map(|name| format!("{name} ({ns})"))
                .collect::<Vec<_>>()
        };
        self.blobs.iter().flat_map(of).collect()
    }

    /// The layers that make the snapshot with this chain ID.
    pub(super) fn layers(&self, ns: &str, chain: &str) -> &[Layer] {
        self.layers
            .get(&(ns.to_owned(), chain.to_owned()))
            .map_or(&[], Vec::as_slice)
    }
}

/// The walk over all images.
struct Walk<'a> {
    parts: &'a Parts<'a>,
    records: &'a Records,
    states: &'a States,
    documents: BTreeMap<Digest, Option<Document>>,
    needs: Needs,
}

/// Walks over all images, and tells of what has no record at all. Blobs whose record or file is
/// there in part are told of as blobs.
pub(super) fn check(
    parts: &Parts<'_>,
    records: &Records,
    states: &States,
    report: &mut Report<'_>,
) -> Needs {
    let mut walk = Walk {
        parts,
        records,
        states,
        documents: BTreeMap::new(),
        needs: Needs::default(),
    };
    for (ns, image) in &records.images {
        let subject = format!("image {} ({ns})", image.name);
        let target = image.target.as_ref().map(|target| target.digest.as_str());
        let Some(Ok(target)) = target.map(Digest::parse) else {
            report.problem(subject, "has no target", "remove it and pull it again");
            continue;
        };
        let mut missing = Vec::new();
        walk.image(ns, &image.name, target, DEPTH, &mut missing);
        if !missing.is_empty() {
            let text = format!("incomplete: {}", some(missing));
            report.problem(subject, text, again(std::slice::from_ref(&image.name)));
        }
    }
    walk.chains();
    walk.needs
}

impl Walk<'_> {
    fn is_here(&self, ns: &str, digest: &Digest) -> bool {
        self.records.content.contains_key(&(ns.to_owned(), *digest))
            && !matches!(self.states.get(digest), Some(State::Missing) | None)
    }

    fn need(&mut self, ns: &str, name: &str, digest: Digest) {
        let names = self.needs.blobs.entry((ns.to_owned(), digest)).or_default();
        names.insert(name.to_owned());
    }

    /// What a blob says, if it is whole and an index or a manifest.
    fn read(&mut self, digest: &Digest) -> Option<&Document> {
        if !self.documents.contains_key(digest) {
            let document = self
                .json(digest)
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            self.documents.insert(*digest, document);
        }
        self.documents.get(digest)?.as_ref()
    }

    /// The bytes of a small blob that begins as JSON objects do.
    fn json(&self, digest: &Digest) -> Option<Vec<u8>> {
        let Some(State::Good(size @ ..=LIMIT)) = self.states.get(digest) else {
            return None;
        };
        let mut file = File::open(self.parts.blobs.path(digest)).ok()?;
        let mut first = [0];
        file.read_exact(&mut first).ok()?;
        if first != *b"{" {
            return None;
        }
        let mut bytes = first.to_vec();
        file.take(*size).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Walks from `digest`, which the image `name` needs, down. What is missing is added to
    /// `missing`. Answers whether everything is here.
    fn image(
        &mut self,
        ns: &str,
        name: &str,
        digest: Digest,
        depth: usize,
        missing: &mut Vec<String>,
    ) -> bool {
        self.need(ns, name, digest);
        if !self.records.content.contains_key(&(ns.to_owned(), digest)) {
            missing.push(format!("manifest {digest}"));
            return false;
        }
        let Some(document) = self.read(&digest) else {
            // Damaged or gone, which is told of the blob; or of a kind that has no parts.
            return self.is_here(ns, &digest);
        };
        if document.manifests.is_empty() {
            let config = document.config.iter().map(|part| ("config", part));
            let layers = document.layers.iter().map(|part| ("layer", part));
            let parts: Vec<(&str, Digest)> = config
                .chain(layers)
                .filter_map(|(what, part)| Some((what, Digest::parse(&part.digest).ok()?)))
                .collect();
            return self.manifest(ns, name, digest, parts, missing);
        }
        let children: Vec<(Digest, bool)> = document
            .manifests
            .iter()
            .filter_map(|part| Some((Digest::parse(&part.digest).ok()?, is_ours(part))))
            .collect();
        if depth == 0 {
            return true;
        }
        let (mut any, mut absent) = (false, Vec::new());
        for (child, ours) in children {
            if !self.records.content.contains_key(&(ns.to_owned(), child)) {
                absent.push(child);
                continue;
            }
            let mut lacking = Vec::new();
            any |= self.image(ns, name, child, depth - 1, &mut lacking);
            if ours {
                missing.append(&mut lacking);
            }
        }
        if !any && missing.is_empty() {
            missing.push(format!("none of the manifests of {digest} is here whole"));
        }
        any
    }

    fn manifest(
        &mut self,
        ns: &str,
        name: &str,
        digest: Digest,
        parts: Vec<(&str, Digest)>,
        missing: &mut Vec<String>,
    ) -> bool {
        let mut whole = true;
        for (what, part) in parts {
            self.need(ns, name, part);
            if self.is_here(ns, &part) {
                continue;
            }
            whole = false;
            let is_known = self.records.content.contains_key(&(ns.to_owned(), part));
            if !is_known && (what == "config" || self.is_held(ns, &digest, &part)) {
                missing.push(format!("{what} {part}"));
            }
        }
        whole
    }

    /// Whether labels of a manifest hold a layer: clients that throw layers away after unpacking
    /// leave no such label.
    fn is_held(&self, ns: &str, manifest: &Digest, layer: &Digest) -> bool {
        let info = self.records.content.get(&(ns.to_owned(), *manifest));
        let layer = layer.to_string();
        info.is_some_and(|info| info.labels.values().any(|value| *value == layer))
    }

    /// Finds out which layers make which snapshots, from every manifest whose configuration is
    /// here, whether an image leads to it or not.
    fn chains(&mut self) {
        let known: Vec<(String, Digest)> = self.records.content.keys().cloned().collect();
        for (ns, digest) in known {
            let Some(document) = self.read(&digest) else {
                continue;
            };
            if !document.manifests.is_empty() {
                self.needs.indexes.insert(digest);
                continue;
            }
            let Some(config) = &document.config else {
                continue;
            };
            let layers = &document.layers;
            let Ok(config) = Digest::parse(&config.digest) else {
                continue;
            };
            let layers: Vec<Option<Layer>> = layers
                .iter()
                .map(|part| {
                    Some(Layer {
                        digest: Digest::parse(&part.digest).ok()?,
                        media_type: part.media_type.clone(),
                    })
                })
                .collect();
            if !self.is_here(&ns, &config) {
                continue;
            }
            let Some(config) = self
                .json(&config)
                .and_then(|bytes| serde_json::from_slice::<Configuration>(&bytes).ok())
            else {
                continue;
            };
            let chain = chain_ids(&config.rootfs.diff_ids);
            if chain.len() != layers.len() {
                continue;
            }
            for (chain, layer) in chain.into_iter().zip(layers) {
                let known = self.needs.layers.entry((ns.clone(), chain)).or_default();
                known.extend(layer.filter(|layer| !known.contains(layer)));
            }
        }
    }
}

/// Whether a client on this machine unpacks what an index lists.
fn is_ours(part: &Part) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    part.platform
        .as_ref()
        .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
}

/// The names of the snapshots that layers with these digests (of what is in them) make one on the
/// other (image-spec, config.md, "Layer ChainID").
fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match ids.last() {
            None => diff_id.clone(),
            Some(before) => {
                let mut hash = Sha256::new();
                hash.update(format!("{before} {diff_id}"));
                Digest::of(&hash).to_string()
            }
        };
        ids.push(id);
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_image_specification() {
        let ids = ["sha256:a", "sha256:b"].map(str::to_owned);
        let second = Digest::of(&Sha256::new_with_prefix("sha256:a sha256:b")).to_string();
        assert_eq!(chain_ids(&ids), ["sha256:a".to_owned(), second]);
        assert!(chain_ids(&[]).is_empty());
    }
}
