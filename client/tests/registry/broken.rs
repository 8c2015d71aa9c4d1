//! Pulls that are broken off, by the network, by signals and by each other: what came once is not
//! fetched again, and what is damaged is not kept.

use std::fs;
use std::process::Stdio;

use crate::common::{Bed, Running, eventually, on_both_engines};
use crate::proxy::{Plan, Proxy, Seen};
use crate::pull::{blobs, no_leases};
use crate::server::{Layout, Server};

/// Bytes of the large layer.
const LARGE: usize = 4 << 20;
/// Where it is broken off.
const PART: u64 = 2 << 20;

on_both_engines! {
    a_broken_connection_is_gone_on_with
    a_host_without_ranges_is_read_from_its_start
    a_killed_client_is_gone_on_with
    a_killed_daemon_is_gone_on_with
    what_a_killed_daemon_left_is_in_nobodys_way
    an_interrupt_ends_it_cleanly
    two_at_once_do_the_work_once
    one_takes_over_when_the_other_is_killed
    a_damaged_blob_is_refused_and_not_kept
}

/// A registry with an image, behind a proxy.
struct Scene {
    _server: Server,
    proxy: Proxy,
    name: String,
    digest: String,
    /// The digest of the large layer.
    layer: String,
}

impl Scene {
    fn new() -> Self {
        let (server, layout) = (Server::new(), Layout::new(LARGE));
        let digest = server.fill(&layout, "app", "app:1");
        let proxy = Proxy::new(server.port);
        Self {
            name: format!("{}/app:1", proxy.host()),
            layer: server.large_layer("app:1"),
            _server: server,
            proxy,
            digest,
        }
    }

    fn plan(&self) -> Plan {
        Plan {
            path: self.layer.clone(),
            ..Plan::default()
        }
    }

    /// Starts a pull and waits until it is held up in the large layer, and all that came so far is
    /// in the daemon.
    #[track_caller]
    fn held_pull(&self, bed: &Bed) -> Running {
        self.proxy.plan(Plan {
            hold: Some(PART),
            ..self.plan()
        });
        let mut command = bed.command();
        command.args(["pull", &self.name]).stdin(Stdio::null());
        let running = Running::start(&mut command);
        eventually("the pull is held up", || self.proxy.held() == 1);
        // Written in pieces of a mebibyte, and the last one is not full.
        eventually("what came is written", || {
            ingested(bed) == (PART >> 20) << 20
        });
        running
    }

    /// Pulls it to the end; answers the requests for the large layer.
    #[track_caller]
    fn finish(&self, bed: &Bed) -> Vec<Seen> {
        self.proxy.plan(Plan::default());
        self.proxy.take_seen();
        let ran = bed.wherry(&["pull", &self.name]);
        let seen = self.proxy.gets(&self.layer);
        assert_eq!(
            ran.ok(),
            format!("{}@{}\n", self.name, self.digest),
            "{seen:?}"
        );
        no_leases_but(bed, 0);
        seen
    }
}

/// How many bytes of unfinished uploads the daemon has.
fn ingested(bed: &Bed) -> u64 {
    let folder = bed
        .dir
        .path()
        .join("root/io.containerd.content.v1.content/ingest");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| fs::metadata(entry.path().join("data")).map_or(0, |m| m.len()));
    // The others are small, and may be under way as well.
    sizes.max().unwrap_or_default()
}

#[track_caller]
fn no_leases_but(bed: &Bed, count: usize) {
    let leases = crate::pull::ctr(bed, &["leases", "ls", "-q"]);
    assert_eq!(leases.lines().count(), count, "{leases}");
}

fn a_broken_connection_is_gone_on_with(bed: &mut Bed) {
    let scene = Scene::new();
    scene.proxy.plan(Plan {
        cut: (1_200_000, 3),
        ..scene.plan()
    });
    let ran = bed.wherry(&["pull", &scene.name]);
    let gets = scene.proxy.gets(&scene.layer);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stderr.matches("broke off after").count(), 3, "{ran:?}");
    assert_eq!(ran.stdout, format!("{}@{}\n", scene.name, scene.digest));
    let starts: Vec<_> = gets.iter().map(|seen| seen.from).collect();
    // Everything that came counts; only what was on the way when it was cut comes again.
    assert_eq!(starts.len(), 4, "{gets:?}");
    assert_eq!(starts[0], None);
    let mut expected = 0;
    for pair in gets.windows(2) {
        expected += pair[0].sent;
        let next = pair[1].from.unwrap();
        assert!(next <= expected && expected - next < 1 << 20, "{gets:?}");
        expected = next;
    }
    no_leases(bed);
}

fn a_host_without_ranges_is_read_from_its_start(bed: &mut Bed) {
    let scene = Scene::new();
    scene.proxy.plan(Plan {
        cut: (1_200_000, 1),
        no_ranges: true,
        ..scene.plan()
    });
    bed.wherry(&["pull", &scene.name]).ok();
    let gets = scene.proxy.gets(&scene.layer);
    let answers: Vec<_> = gets
        .iter()
        .map(|seen| (seen.from.is_some(), seen.status))
        .collect();
    assert_eq!(answers, [(false, 200), (true, 200)]);
}

fn a_killed_client_is_gone_on_with(bed: &mut Bed) {
    let scene = Scene::new();
    let running = scene.held_pull(bed);
    running.signal("KILL");
    assert_eq!(running.end().code, None);
    let there = ingested(bed);
    let gets = scene.finish_after_kill(bed);
    assert_eq!(gets.len(), 1, "{gets:?}");
    assert_eq!(gets[0].from, Some(there), "{gets:?}");
    assert_eq!(gets[0].status, 206);
}

impl Scene {
    /// As [`Scene::finish`]; the lease of a client that was killed is there until it expires.
    #[track_caller]
    fn finish_after_kill(&self, bed: &Bed) -> Vec<Seen> {
        self.proxy.plan(Plan::default());
        self.proxy.take_seen();
        let ran = bed.wherry(&["pull", &self.name]);
        let seen = self.proxy.gets(&self.layer);
        assert_eq!(
            ran.ok(),
            format!("{}@{}\n", self.name, self.digest),
            "{seen:?}"
        );
        no_leases_but(bed, 1);
        seen
    }
}

fn a_killed_daemon_is_gone_on_with(bed: &mut Bed) {
    let scene = Scene::new();
    let running = scene.held_pull(bed);
    // Being killed in the middle of it is another matter: see the next test.
    eventually("the layer below is unpacked", || {
        crate::pull::ctr(bed, &["snapshots", "ls"]).contains("Committed")
    });
    bed.kill();
    scene.proxy.release();
    let ran = running.end();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    bed.start();
    let there = ingested(bed);
    assert_eq!(there, (PART >> 20) << 20);
    let gets = scene.finish_after_kill(bed);
    assert_eq!(gets.len(), 1, "{gets:?}");
    assert_eq!(gets[0].from, Some(there), "{gets:?}");
}

/// A daemon that is killed after it named the folder of a snapshot and before it stored the record
/// leaves the folder, and its number is given again.
fn what_a_killed_daemon_left_is_in_nobodys_way(bed: &mut Bed) {
    let scene = Scene::new();
    bed.kill();
    let left = "root/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/of-nobody";
    fs::create_dir_all(bed.dir.path().join(left)).unwrap();
    bed.start();
    let pulled = bed.wherry(&["pull", &scene.name]).ok();
    assert_eq!(pulled, format!("{}@{}\n", scene.name, scene.digest));
    let command = ["run", "--rm", &scene.name, "/bin/busybox", "ls", "/"];
    let seen = bed.wherry(&command).ok();
    assert!(
        seen.contains("bin") && !seen.contains("of-nobody"),
        "{seen}"
    );
}

fn an_interrupt_ends_it_cleanly(bed: &mut Bed) {
    let scene = Scene::new();
    let running = scene.held_pull(bed);
    running.signal("INT");
    let said = running.end().failed(1);
    assert!(said.contains("is not pulled: asked to end"), "{said}");
    no_leases(bed);
    // Whatever the collector did meanwhile: what was begun stays.
    let there = ingested(bed);
    assert_eq!(there, (PART >> 20) << 20);
    let gets = scene.finish(bed);
    assert_eq!(gets[0].from, Some(there), "{gets:?}");
}

fn two_at_once_do_the_work_once(bed: &mut Bed) {
    let scene = Scene::new();
    let first = scene.held_pull(bed);
    let mut command = bed.command();
    command.args(["pull", &scene.name]).stdin(Stdio::null());
    let second = Running::start(&mut command);
    // It has asked what the name means, and needs the same layer.
    let heads = || {
        let seen = scene.proxy.seen();
        seen.iter().filter(|seen| seen.method == "HEAD").count()
    };
    eventually("the second has begun", || heads() == 2);
    scene.proxy.release();
    let wanted = format!("{}@{}\n", scene.name, scene.digest);
    assert_eq!(first.end().ok(), wanted);
    assert_eq!(second.end().ok(), wanted);
    let gets: Vec<Seen> = scene.proxy.seen();
    let mut paths: Vec<&str> = gets
        .iter()
        .filter(|seen| seen.method == "GET" && seen.path.contains("/blobs/"))
        .map(|seen| seen.path.as_str())
        .collect();
    let count = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!((count, paths.len()), (3, 3), "{gets:?}");
    no_leases(bed);
}

fn one_takes_over_when_the_other_is_killed(bed: &mut Bed) {
    let scene = Scene::new();
    let first = scene.held_pull(bed);
    let mut command = bed.command();
    command.args(["pull", &scene.name]).stdin(Stdio::null());
    let second = Running::start(&mut command);
    eventually("the second has begun", || {
        scene
            .proxy
            .seen()
            .iter()
            .filter(|seen| seen.method == "HEAD")
            .count()
            == 2
    });
    let there = ingested(bed);
    scene.proxy.plan(Plan::default());
    first.signal("KILL");
    first.end();
    assert_eq!(
        second.end().ok(),
        format!("{}@{}\n", scene.name, scene.digest)
    );
    let gets = scene.proxy.gets(&scene.layer);
    let starts: Vec<_> = gets.iter().map(|seen| seen.from).collect();
    assert_eq!(starts, [None, Some(there)]);
}

fn a_damaged_blob_is_refused_and_not_kept(bed: &mut Bed) {
    let scene = Scene::new();
    scene.proxy.plan(Plan {
        flip: Some(1_500_000),
        ..scene.plan()
    });
    let said = bed.wherry(&["pull", &scene.name]).failed(1);
    assert!(
        said.contains("damaged") && said.contains(&scene.layer),
        "{said}"
    );
    assert!(!blobs(bed).contains(&scene.layer));
    no_leases(bed);
    assert_eq!(ingested(bed), 0, "what is wrong is not gone on with");
    let gets = scene.finish(bed);
    assert_eq!(gets[0].from, None);

    // What is damaged beneath a part that was kept: all of it is fetched again.
    let scene = Scene::new();
    scene.proxy.plan(Plan {
        flip: Some(1_500_000),
        hold: Some(PART),
        ..scene.plan()
    });
    let mut command = bed.command();
    command.args(["pull", &scene.name]).stdin(Stdio::null());
    let running = Running::start(&mut command);
    eventually("what came is written", || {
        ingested(bed) == (PART >> 20) << 20
    });
    running.signal("INT");
    running.end().failed(1);
    let gets = scene.finish(bed);
    let starts: Vec<_> = gets.iter().map(|seen| seen.from.is_some()).collect();
    assert_eq!(starts, [true, false], "{gets:?}");
}
