//! Many images and snapshots, listed; and snapshots made one after another.

use protobuf::CodedOutputStream;

use crate::e2e::Output;

use super::super::super::hands;
use super::super::super::options::Options;
use super::super::super::rig::timed;
use super::super::super::samples::Samples;
use super::super::ground::Ground;
use super::super::grpc::Connection;
use super::super::node::{Core, Node};
use super::Peaks;

/// How many there are of each.
const IMAGES: usize = 1_000;
const SNAPSHOTS: usize = 10_000;
/// How many clients make them.
const CLIENTS: usize = 4;

const SNAPSHOTTER: &str = "overlayfs";
/// A committed snapshot that all others stand on.
const BASE: &str = "base";
/// Nothing with this label is collected.
const KEPT: [&str; 2] = ["containerd.io/gc.root", "2023-01-01T00:00:00Z"];

/// Metrics `images.list` and `images.list-snapshots`, milliseconds of `ctr`, `images.list-both` of both
/// together, and the first two with `-raw`, milliseconds of the call alone: of the client that lists
/// images nineteen parts in twenty are its own start and end. They are listed where nothing waits for a disk, since making
/// them would take minutes there.
pub(super) fn listed(options: &Options, cores: &[Core], samples: &mut Samples, peaks: &mut Peaks) {
    let ground = Ground::memory();
    let nodes: Vec<Node> = cores
        .iter()
        .map(|core| {
            let node = started(*core, &ground);
            fill(&node);
            node
        })
        .collect();
    let mut raw: Vec<Connection> = nodes.iter().map(Node::connect).collect();
    // The first round warms up.
    let rounds = options.lists() + 1;
    for round in 0..rounds {
        super::super::super::progress(round + 1, rounds);
        for turn in 0..nodes.len() {
            let at = (turn + round) % nodes.len();
            let (node, raw) = (&nodes[at], &mut raw[at]);
            let images = by_ctr(node, "images", IMAGES);
            let snapshots = by_ctr(node, "snapshots", SNAPSHOTS);
            let images_raw = call(raw, "images.v1.Images/List", &[]);
            let list = message(|out| out.write_string(1, SNAPSHOTTER));
            let snapshots_raw = call(raw, "snapshots.v1.Snapshots/List", &list);
            if round == 0 {
                continue;
            }
            let name = node.core.name();
            samples.push("images.list", name, images);
            samples.push("images.list-snapshots", name, snapshots);
            samples.push("images.list-both", name, images + snapshots);
            samples.push("images.list-raw", name, images_raw);
            samples.push("images.list-snapshots-raw", name, snapshots_raw);
        }
    }
    nodes.iter().for_each(|node| peaks.see(node));
}

/// Metrics `images.prepare` and `images.remove`, milliseconds of one Prepare on a committed parent,
/// and of the Remove after it.
pub(super) fn prepared(
    options: &Options,
    cores: &[Core],
    samples: &mut Samples,
    peaks: &mut Peaks,
) {
    let ground = Ground::disk();
    let nodes: Vec<Node> = cores.iter().map(|core| started(*core, &ground)).collect();
    let mut raw: Vec<Connection> = nodes.iter().map(Node::connect).collect();
    ground.settle();
    let rounds = options.prepares();
    for round in 0..rounds {
        super::super::super::progress(round + 1, rounds);
        for turn in 0..nodes.len() {
            let at = (turn + round) % nodes.len();
            let (name, raw) = (nodes[at].core.name(), &mut raw[at]);
            let key = format!("prepared-{round}");
            samples.push("images.prepare", name, prepare(raw, &key, BASE));
            samples.push("images.remove", name, remove(raw, &key));
        }
    }
    nodes.iter().for_each(|node| peaks.see(node));
}

/// A daemon with the committed snapshot.
fn started(core: Core, ground: &Ground) -> Node {
    let mut node = Node::on(core, ground.path());
    node.start();
    let mut raw = node.connect();
    prepare(&mut raw, "making-base", "");
    let commit = message(|out| {
        out.write_string(1, SNAPSHOTTER)?;
        out.write_string(2, BASE)?;
        out.write_string(3, "making-base")?;
        out.write_bytes(4, &kept())
    });
    call(&mut raw, "snapshots.v1.Snapshots/Commit", &commit);
    node
}

fn fill(node: &Node) {
    let digits = |kind: usize, number: usize| format!("{:064x}", kind << 32 | number);
    let clients = (0..CLIENTS).map(|client| (client, node.connect()));
    hands::share(clients, |(client, mut raw)| {
        for number in (client..SNAPSHOTS).step_by(CLIENTS) {
            prepare(&mut raw, &digits(1, number), BASE);
        }
        for number in (client..IMAGES).step_by(CLIENTS) {
            let target = message(|out| {
                out.write_string(1, "application/vnd.oci.image.manifest.v1+json")?;
                out.write_string(2, &format!("sha256:{}", digits(2, number)))?;
                out.write_int64(3, 1000)
            });
            let image = message(|out| {
                out.write_string(1, &format!("bench.invalid/library/image-{number:04}:1.0"))?;
                out.write_bytes(3, &target)
            });
            let create = message(|out| out.write_bytes(1, &image));
            call(&mut raw, "images.v1.Images/Create", &create);
        }
    });
}

fn kept() -> Vec<u8> {
    message(|out| {
        out.write_string(1, KEPT[0])?;
        out.write_string(2, KEPT[1])
    })
}

fn prepare(raw: &mut Connection, key: &str, parent: &str) -> f64 {
    let prepare = message(|out| {
        out.write_string(1, SNAPSHOTTER)?;
        out.write_string(2, key)?;
        out.write_string(3, parent)?;
        out.write_bytes(4, &kept())
    });
    call(raw, "snapshots.v1.Snapshots/Prepare", &prepare)
}

fn remove(raw: &mut Connection, key: &str) -> f64 {
    let remove = message(|out| {
        out.write_string(1, SNAPSHOTTER)?;
        out.write_string(2, key)
    });
    call(raw, "snapshots.v1.Snapshots/Remove", &remove)
}

/// Milliseconds of a call, which must go well.
fn call(raw: &mut Connection, method: &str, message: &[u8]) -> f64 {
    let method = format!("containerd.services.{method}");
    let (ms, length) = timed(|| raw.call(&method, message).expect("call the daemon"));
    assert!(length > 0, "{method} was refused");
    ms
}

/// An encoded message of these fields.
fn message(write: impl FnOnce(&mut CodedOutputStream<'_>) -> protobuf::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut out = CodedOutputStream::vec(&mut bytes);
    write(&mut out)
        .and_then(|()| out.flush())
        .expect("write to memory");
    drop(out);
    bytes
}

/// Milliseconds in which `ctr` lists at least `least` of a kind.
fn by_ctr(node: &Node, kind: &str, least: usize) -> f64 {
    let mut command = node.ctr([kind, "ls"]);
    if kind == "images" {
        // Otherwise it reads the manifests too, which are not there.
        command.arg("-q");
    }
    let (ms, output) = timed(|| crate::e2e::run(command));
    let output: Output = output.ok();
    let lines = output.stdout.lines().count();
    assert!(lines >= least, "only {lines} lines of {kind}");
    ms
}
