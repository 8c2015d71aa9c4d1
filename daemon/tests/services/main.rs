//! The services beside Debian's containerd: both daemons are asked the same things in the same
//! order, good and bad, and must answer the same: codes, words and messages. Where they differ,
//! a table says why; a row that no longer differs fails too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "../common/api.rs"]
mod api;
#[path = "../common/mod.rs"]
mod common;

mod changes;
mod container_lists;
mod containers;
mod events;
mod layers;
mod leases;
mod namespaces;
mod plain;
mod snapshots;
mod tasks;
mod ttrpc_socket;
mod watchers;

use std::collections::BTreeSet;
use std::fmt::Debug;

use api::{Peer, Reference, told};
use common::{Bed, Shims};
use core_api::prost::Message;
use regex_lite::Regex;
use tonic::Status;

/// What one daemon was asked, and what it answered.
struct Talk {
    peer: Peer,
    /// What is this daemon's own and is left out of comparisons, and what stands in its place.
    own: Vec<(String, String)>,
    said: Vec<(String, String)>,
}

impl Talk {
    /// Asks, and notes the answer under `name`.
    async fn ask<A, R>(&mut self, name: &str, method: &str, message: A) -> Result<R, Status>
    where
        A: Message + Send + Sync + 'static,
        R: Message + Default + Debug + Send + Sync + 'static,
    {
        let peer = self.peer.clone();
        self.ask_as(&peer, name, method, message).await
    }

    /// As [`Talk::ask`] in another namespace.
    async fn ask_as<A, R>(
        &mut self,
        peer: &Peer,
        name: &str,
        method: &str,
        message: A,
    ) -> Result<R, Status>
    where
        A: Message + Send + Sync + 'static,
        R: Message + Default + Debug + Send + Sync + 'static,
    {
        let answer = peer.call(method, message).await;
        self.note(name, &told(&answer));
        answer
    }

    /// Notes a text to be compared.
    fn note(&mut self, name: &str, text: &str) {
        let mut text = Regex::new(r"Timestamp \{ seconds: [1-9]\d*, nanos: \d+ \}")
            .unwrap()
            .replace_all(text, "SOME-TIME")
            .into_owned();
        // Which numbers folders have is compared in `tests/snapshots.rs`: a refusal costs
        // containerd a number.
        text = Regex::new(r"/snapshots/\d+")
            .unwrap()
            .replace_all(&text, "/snapshots/NUMBER")
            .into_owned();
        for (own, instead) in &self.own {
            text = text.replace(own, instead);
        }
        self.said.push((name.to_owned(), text));
    }
}

/// Which daemon is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Ours,
    Containerd,
}

/// Both daemons.
struct Pair {
    ours: Bed,
    reference: Reference,
}

impl Pair {
    fn new() -> Self {
        let ours = Bed::new(Shims::Ours);
        let reference = Reference::new("");
        Self { ours, reference }
    }

    /// A conversation that has not begun.
    async fn talk(&self, who: Who) -> Talk {
        let (address, folder, namespace) = match who {
            Who::Ours => (
                self.ours.address(),
                self.ours.dir.path(),
                self.ours.namespace.clone(),
            ),
            Who::Containerd => (
                self.reference.address(),
                self.reference.dir.path(),
                format!("{}r", self.ours.namespace),
            ),
        };
        let folder = folder.to_str().unwrap().to_owned();
        Talk {
            peer: Peer::connect(&address, &namespace).await,
            own: vec![(folder, "DIR".to_owned()), (namespace, "NS".to_owned())],
            said: Vec::new(),
        }
    }
}

/// Compares what was said. `differences` names the steps whose answers may differ (with
/// a `*` all that begin so), with the reason.
#[track_caller]
fn compare(ours: &Talk, containerds: &Talk, differences: &[(&str, &str)]) {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    let fits = |step: &str, name: &str| match step.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => step == name,
    };
    assert_eq!(names(ours), names(containerds), "the steps are the same");
    for ((name, our), (_, their)) in ours.said.iter().zip(&containerds.said) {
        let excused = differences.iter().any(|(step, _)| fits(step, name));
        if !alike(our, their) {
            seen.insert(name.as_str());
            if !excused {
                let (our, their) = parting(our, their);
                faults.push(format!("{name}:\n  ours: {our}\n  containerd: {their}"));
            }
        }
    }
    for (step, reason) in differences {
        if !seen.iter().any(|name: &&str| fits(step, name)) {
            faults.push(format!("{step}: differs no more, yet excused: {reason}"));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Two texts from shortly before where they part, for people to read.
fn parting(one: &str, other: &str) -> (String, String) {
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b);
    let from = same.count().saturating_sub(30);
    let part = |text: &str| text.chars().skip(from).take(300).collect::<String>();
    (part(one), part(other))
}

/// Whether two answers are the same. Of refusals that is the code, and the name of the class at
/// the end where containerd has it: clients know them by these. What is between are each daemon's
/// own words.
fn alike(our: &str, their: &str) -> bool {
    const CLASSES: [&str; 4] = [
        "not found",
        "already exists",
        "failed precondition",
        "invalid argument",
    ];
    if our == their {
        return true;
    }
    let (Some((our_code, _)), Some((code, words))) = (our.split_once(": "), their.split_once(": "))
    else {
        return false;
    };
    let class = CLASSES.iter().find(|class| words.ends_with(*class));
    code == our_code
        && code.chars().all(char::is_alphabetic)
        && class.is_none_or(|class| our.ends_with(class))
}

fn names(talk: &Talk) -> Vec<&str> {
    talk.said.iter().map(|(name, _)| name.as_str()).collect()
}

/// Holds a conversation with both daemons and compares.
macro_rules! same_talk {
    ($talk:path, $differences:expr) => {{
        let pair = crate::Pair::new();
        let mut ours = pair.talk(crate::Who::Ours).await;
        let mut containerds = pair.talk(crate::Who::Containerd).await;
        $talk(&mut ours).await;
        $talk(&mut containerds).await;
        crate::compare(&ours, &containerds, $differences);
    }};
}
use same_talk;

/// An Any of a type that nobody knows, with bytes that are no text.
fn odd_any() -> core_api::Any {
    core_api::Any {
        type_url: "nobody/knows.This".into(),
        value: vec![0xff, 0, 0x80, 1],
    }
}

fn map(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
