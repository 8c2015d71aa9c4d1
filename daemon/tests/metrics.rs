//! Metrics beside containerd's: the same names for the same task, in a format that a strict
//! reader takes, and never held up by a shim that hangs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "common/api.rs"]
mod api;
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use api::Reference;
use common::{Bed, Shims, eventually, run};

/// An address that nobody serves at.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn configuration(address: &str) -> String {
    format!("[metrics]\naddress = {address:?}\ngrpc_histogram = true\n")
}

/// Sends `request` and reads to the end: head and body.
fn http(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn scrape(address: &str) -> String {
    let (head, body) = http(
        address,
        "GET /v1/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    if head.to_ascii_lowercase().contains("chunked") {
        return dechunked(&body);
    }
    body
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole += &rest[..length];
        body = &rest[length + 2..];
    }
}

type Labels = BTreeMap<String, String>;

/// A family of samples, read strictly.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

fn labels(mut text: &str) -> Labels {
    let mut found = Labels::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("a label has a value");
        assert!(is_name(name), "{name}");
        let mut value = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next().expect("a value ends with a quote") {
                '"' => break,
                '\\' => match chars.next().unwrap() {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    c => panic!("no such escape: {c}"),
                },
                c => value.push(c),
            }
        }
        let again = found.insert(name.to_owned(), value);
        assert!(again.is_none(), "label {name} twice");
        text = chars.as_str();
        if let Some(rest) = text.strip_prefix(',') {
            assert!(!rest.is_empty(), "a comma with nothing after it");
            text = rest;
        } else {
            assert!(text.is_empty(), "after a label: {text}");
        }
    }
    found
}

/// Reads Prometheus' text format and fails on whatever is not quite right.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("help has words");
            assert!(is_name(name) && !words.is_empty(), "{line}");
            assert!(!families.contains_key(name), "{name} is in two pieces");
            current = name.to_owned();
            families.insert(current.clone(), Family::default());
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, current, "type after help");
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind));
            let family = families.get_mut(name).unwrap();
            assert!(family.kind.is_empty() && family.samples.is_empty());
            family.kind = kind.to_owned();
            continue;
        }
        assert!(!line.starts_with('#') && !line.is_empty(), "{line:?}");
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(seen.insert(series.to_owned()), "{series} twice");
        let value: f64 = value.parse().unwrap();
        let (name, labels) = match series.split_once('{') {
            None => (series, Labels::new()),
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').unwrap())),
        };
        let family = families.get_mut(&current).expect("a type comes first");
        let suffix = name.strip_prefix(&current).expect("it is of this family");
        let suffixes: &[&str] = match family.kind.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            "summary" => &["", "_sum", "_count"],
            _ => &[""],
        };
        assert!(is_name(name) && suffixes.contains(&suffix), "{line}");
        family.samples.push((name.to_owned(), labels, value));
    }
    families
}

fn names(families: &BTreeMap<String, Family>, start: &str) -> BTreeSet<String> {
    let of = families.iter().filter(|(name, _)| name.starts_with(start));
    of.filter(|(_, family)| !family.samples.is_empty())
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn names_and_labels_are_containerds() {
    let address = free_address();
    let bed = Bed::with_config(Shims::Ours, &configuration(&address));
    let their_address = free_address();
    let reference = Reference::new(&configuration(&their_address));
    bed.run_detached("m1");
    let their_namespace = format!("{}r", bed.namespace);
    let rootfs = bed.rootfs();
    let mut ctr = Command::new("ctr");
    ctr.arg("-a").arg(reference.address());
    ctr.args(["-n", &their_namespace, "run", "-d", "--rootfs", &rootfs]);
    run(ctr.args(["m1", "/bin/busybox", "sleep", "1000"])).ok();

    let ours = parse(&scrape(&address));
    let theirs = parse(&scrape(&their_address));
    let containers = names(&ours, "container_");
    assert_eq!(containers, names(&theirs, "container_"));
    assert!(containers.len() > 40, "{containers:?}");
    // The task is on cgroup v1 or v2, and that decides; both have these.
    for name in ["container_pids_current", "container_pids_limit"] {
        assert!(containers.contains(name), "{containers:?}");
    }
    let own = |family: &Family, namespace: &str| {
        let mut labels = family.samples[0].1.clone();
        assert_eq!(labels["container_id"], "m1");
        assert_eq!(labels.remove("namespace").unwrap(), namespace);
        labels.remove("cpu");
        labels
    };
    for name in &containers {
        assert_eq!(
            own(&ours[name], &bed.namespace),
            own(&theirs[name], &their_namespace),
            "{name}"
        );
        assert_eq!(ours[name].kind, theirs[name].kind, "{name}");
    }
    assert!(ours["container_pids_current"].samples[0].2 >= 1.0);
    for start in ["grpc_server_", "process_", "containerd_build_info_total"] {
        assert_eq!(names(&ours, start), names(&theirs, start));
    }
    let started = &ours["grpc_server_started_total"].samples;
    let create = started.iter().find(|(_, labels, _)| {
        labels["grpc_service"] == "containerd.services.tasks.v1.Tasks"
            && labels["grpc_method"] == "Create"
    });
    let (_, create_labels, count) = create.unwrap();
    assert_eq!(*count, 1.0);
    assert_eq!(create_labels["grpc_type"], "unary");
    let code = |families: &BTreeMap<String, Family>| {
        let handled = &families["grpc_server_handled_total"].samples;
        let of = |(_, labels, value): &(String, Labels, f64)| {
            (labels["grpc_method"] == "Start").then(|| (labels["grpc_code"].clone(), *value))
        };
        handled
            .iter()
            .filter_map(of)
            .find(|(_, value)| *value > 0.0)
            .unwrap()
    };
    assert_eq!(code(&ours), code(&theirs));
    assert!(ours["process_resident_memory_bytes"].samples[0].2 > 1e6);

    bed.ctr(&["task", "rm", "-f", "m1"]);
    let after = parse(&scrape(&address));
    assert_eq!(names(&after, "container_"), BTreeSet::new());
}

#[test]
fn a_shim_that_hangs_does_not_hold_up_the_page() {
    let address = free_address();
    let bed = Bed::with_config(Shims::Ours, &configuration(&address));
    bed.run_detached("good");
    bed.run_detached("hangs");
    let (pid, _) = bed.task("hangs").unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let shim = shim.unwrap().trim().to_owned();
    run(Command::new("kill").args(["-STOP", &shim])).ok();
    let since = Instant::now();
    let text = scrape(&address);
    let taken = since.elapsed();
    run(Command::new("kill").args(["-CONT", &shim])).ok();
    assert!(taken < Duration::from_secs(4), "{taken:?}");
    assert!(text.contains("container_id=\"good\""));
    assert!(!text.contains("container_id=\"hangs\""));
    eventually("it is back", || {
        scrape(&address).contains("container_id=\"hangs\"")
    });
}

#[test]
fn bad_requests_are_answered_and_slow_ones_dropped() {
    let address = free_address();
    let bed = Bed::with_config(Shims::Ours, &configuration(&address));
    for (request, code) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics HTTP/1.0\r\n\r\n", "404"),
        ("POST /v1/metrics HTTP/1.1\r\n\r\n", "405"),
        ("HEAD /v1/metrics HTTP/1.1\r\n\r\n", "200"),
        ("GET /v1/metrics?x=1 HTTP/1.1\r\n\r\n", "200"),
        ("GET /v1/metrics\r\n\r\n", "400"),
        ("rubbish\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
    ] {
        let (head, _) = http(&address, request);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {code} ")),
            "{request:?}: {head}"
        );
    }
    let long = format!("GET /v1/metrics HTTP/1.1\r\nX: {}", "x".repeat(9 << 10));
    let (head, _) = http(&address, &long);
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");

    // More clients than are answered at a time, none of which ever says anything.
    let silent: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    assert!(scrape(&address).contains("containerd_build_info_total"));
    drop(silent);
    bed.ctr(&["version"]).ok();
}
