//! What needs what, and what nobody needs: the label graph, without any I/O.
//!
//! Roots are images, containers (for their snapshot), leases that have not expired, and whatever
//! has the label `containerd.io/gc.root`. Labels `containerd.io/gc.ref.content…`,
//! `…gc.ref.snapshot.SNAPSHOTTER…` and `…gc.ref.image…` lead from an object to what it needs;
//! `…gc.bref.…` lead the other way, from what is needed to the object that says so. A lease with
//! `containerd.io/gc.flat` holds only what it names itself (containerd, docs/garbage-collection).

use std::collections::{BTreeMap, HashMap, HashSet};

/// What is before the kind of label that the collector reads.
const PREFIX: &str = "containerd.io/gc.";

/// Something that may be needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Thing {
    /// A blob, by digest.
    Content(String),
    /// A snapshot: snapshotter and key.
    Snapshot(String, String),
    /// An image, by name.
    Image(String),
    /// An upload, by reference.
    Ingest(String),
}

/// A thing in its namespace: nothing leads from one namespace into another.
pub type Node = (String, Thing);

/// All that is known.
#[derive(Debug, Default)]
pub struct Graph {
    /// What is needed for its own sake, and whether what it leads to is needed as well.
    roots: Vec<(Node, bool)>,
    edges: HashMap<Node, Vec<Node>>,
}

impl Graph {
    /// `node` is needed for its own sake, and with it what it leads to.
    pub fn root(&mut self, node: Node) {
        self.roots.push((node, true));
    }

    /// `node` is needed for its own sake, but not what it leads to.
    pub fn flat_root(&mut self, node: Node) {
        self.roots.push((node, false));
    }

    /// Who needs `from` needs `to`.
    pub fn edge(&mut self, from: Node, to: Node) {
        self.edges.entry(from).or_default().push(to);
    }

    /// Takes in what the labels of `node` say.
    pub fn labels(&mut self, node: &Node, labels: &BTreeMap<String, String>) {
        for (label, value) in labels {
            let Some(label) = label.strip_prefix(PREFIX) else {
                continue;
            };
            if label == "root" {
                self.root(node.clone());
            } else if let Some(thing) = label.strip_prefix("ref.").and_then(|l| named(l, value)) {
                self.edge(node.clone(), (node.0.clone(), thing));
            } else if let Some(thing) = label.strip_prefix("bref.").and_then(|l| named(l, value)) {
                self.edge((node.0.clone(), thing), node.clone());
            }
        }
    }

    /// Everything that is needed.
    pub fn needed(&self) -> HashSet<Node> {
        let mut needed = HashSet::new();
        let mut open = Vec::new();
        for (node, follow) in &self.roots {
            if *follow {
                open.push(node);
            } else {
                needed.insert(node.clone());
            }
        }
        // A flat root may be led to from elsewhere too, and then it is followed.
        let mut followed = HashSet::new();
        while let Some(node) = open.pop() {
            if followed.insert(node) {
                needed.insert(node.clone());
                open.extend(self.edges.get(node).into_iter().flatten());
            }
        }
        needed
    }
}

/// What the labels of something hold for it.
pub fn held_by(labels: &BTreeMap<String, String>) -> impl Iterator<Item = Thing> {
    labels.iter().filter_map(|(label, value)| {
        let label = label.strip_prefix(PREFIX)?.strip_prefix("ref.")?;
        named(label, value)
    })
}

/// The thing that a label names: its kind is the label's, with anything behind a dot or slash.
fn named(label: &str, value: &str) -> Option<Thing> {
    let kind = |name: &str| {
        let rest = label.strip_prefix(name)?;
        (rest.is_empty() || rest.starts_with(['.', '/'])).then_some(rest)
    };
    if kind("content").is_some() {
        return Some(Thing::Content(value.to_owned()));
    }
    if kind("image").is_some() {
        return Some(Thing::Image(value.to_owned()));
    }
    let snapshotter = kind("snapshot")?.strip_prefix('.')?;
    let snapshotter = snapshotter
        .split('/')
        .next()
        .filter(|name| !name.is_empty())?;
    Some(Thing::Snapshot(snapshotter.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: &str) -> Node {
        ("ns".to_owned(), Thing::Content(name.to_owned()))
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| (format!("{PREFIX}{key}"), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn labels_lead_from_roots_to_what_they_need() {
        let mut graph = Graph::default();
        graph.root(blob("manifest"));
        let parts = [
            ("ref.content.l.0", "layer"),
            ("ref.content/other", "config"),
            ("ref.content.x", "manifest"),
            ("ref.contents", "not a kind"),
        ];
        graph.labels(&blob("manifest"), &labels(&parts));
        let config = [
            ("ref.snapshot.overlayfs", "chain"),
            ("ref.snapshot.native/x", "chain"),
            ("ref.snapshot.", "nowhere"),
            ("ref.snapshot", "nowhere"),
            ("ref.image.x", "other"),
        ];
        graph.labels(&blob("config"), &labels(&config));
        graph.labels(&blob("lonely"), &labels(&[("ref.content", "unneeded")]));
        graph.labels(&blob("pinned"), &labels(&[("root", "")]));
        graph.labels(&blob("signature"), &labels(&[("bref.content.s", "layer")]));
        let mut needed: Vec<Thing> = graph.needed().into_iter().map(|node| node.1).collect();
        needed.sort();
        let content = |name: &str| Thing::Content(name.to_owned());
        let snapshot = |name: &str| Thing::Snapshot(name.to_owned(), "chain".to_owned());
        let mut expected: Vec<Thing> = ["manifest", "layer", "config", "pinned", "signature"]
            .map(content)
            .into();
        expected.extend([snapshot("overlayfs"), snapshot("native")]);
        expected.push(Thing::Image("other".to_owned()));
        expected.sort();
        assert_eq!(needed, expected);
    }

    #[test]
    fn a_flat_root_holds_itself_alone_unless_it_is_needed_otherwise() {
        let mut graph = Graph::default();
        graph.flat_root(blob("a"));
        graph.edge(blob("a"), blob("b"));
        assert_eq!(graph.needed(), HashSet::from([blob("a")]));
        graph.root(blob("c"));
        graph.edge(blob("c"), blob("a"));
        assert_eq!(graph.needed().len(), 3);
    }
}
