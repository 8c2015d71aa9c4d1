//! The mutation round: puts small defects into a copy of our shim, one at a time, and sees whether
//! the conformance suite notices. A defect that it does not notice is a hole in the suite.
//!
//! The defects stand in `mutations.toml` as text to find and text to put in its place; `tree.rs`
//! copies, changes and builds. `record.rs` keeps `docs/mutations.md`: a round that tries only some
//! defects changes their rows alone.
#![expect(
    clippy::print_stderr,
    reason = "progress goes to standard error, so that the table alone is on standard output"
)]

mod record;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;

use crate::conformance::options::Options;
use crate::conformance::pattern;
use crate::conformance::run::{self, Raw};
use tree::Tree;

const USAGE: &str = "\
usage: mutate [--only PATTERN] [--first] [--record FILE] [-- NEXTEST-ARGUMENTS]

  --only    try only the defects whose name fits (* is any text; several, with commas between)
  --first   run only the checks that should notice, and not all others where these do not
  --record  write what was found into the table in FILE, whose other rows stay";

/// The manifest of defects.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutations {
    mutation: Vec<Mutation>,
}

/// One defect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    /// A short name.
    name: String,
    /// What is wrong then, in a sentence.
    what: String,
    /// The file, from the root of the tree.
    file: PathBuf,
    /// What stands there, exactly once.
    old: String,
    /// What is put in its place.
    new: String,
    /// A filter of nextest for the checks that should notice; they are run first.
    first: String,
}

/// Which checks are run on a defect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Those that should notice.
    First,
    /// All of them, where the first ones did not.
    All,
}

/// What became of one defect.
enum Fate {
    /// These checks failed, twice each.
    Caught(Vec<String>),
    /// All checks passed.
    Survived,
    /// It does not apply or does not compile.
    Broken(String),
}

impl Fate {
    /// In words.
    fn told(&self) -> String {
        match self {
            Self::Caught(checks) => format!("caught by {}", checks.join(", ")),
            Self::Survived => "SURVIVED".to_owned(),
            Self::Broken(error) => format!("NOT TRIED: {error}"),
        }
    }
}

/// What became of the defects of one round, by name.
type Rows = BTreeMap<String, Fate>;

/// The whole program. The exit code is 1 when a defect survived or could not be tried.
pub fn main() -> ExitCode {
    match round(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutate: {error}");
            ExitCode::from(2)
        }
    }
}

fn round(mut args: impl Iterator<Item = String>) -> Result<bool, String> {
    let (mut only, mut record, mut nextest) = ("*".to_owned(), None, Vec::new());
    let mut stages: &[Stage] = &[Stage::First, Stage::All];
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => only = args.next().ok_or(USAGE)?,
            "--first" => stages = &[Stage::First],
            "--record" => record = Some(PathBuf::from(args.next().ok_or(USAGE)?)),
            "--" => nextest = args.by_ref().collect(),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let list: Mutations = crate::conformance::groups::read("mutations.toml")?;
    let chosen: Vec<&Mutation> = list
        .mutation
        .iter()
        .filter(|m| only.split(',').any(|p| pattern::matches(p, &m.name)))
        .collect();
    if chosen.is_empty() {
        return Err(format!("no defect is called {only}"));
    }
    let tree = Tree::copy()?;
    eprintln!("== building without a defect");
    let sound = tree.keep(&tree.build()?, "sound")?;
    let mut rows = Rows::new();
    for (at, mutation) in chosen.iter().enumerate() {
        let fate = fate(&tree, mutation, &sound, stages, &nextest)?;
        eprintln!(
            "{:3}/{} {:32} {}",
            at + 1,
            chosen.len(),
            mutation.name,
            fate.told()
        );
        rows.insert(mutation.name.clone(), fate);
        // After each, since the whole round takes long.
        if let Some(path) = &record {
            record::write(path, &list.mutation, &rows)?;
        }
    }
    print!("{}", record::table(&list.mutation, &rows, ""));
    Ok(rows.values().all(|fate| matches!(fate, Fate::Caught(_))))
}

/// Tries one defect: the checks that should notice first, all of them if these do not.
fn fate(
    tree: &Tree,
    mutation: &Mutation,
    sound: &Path,
    stages: &[Stage],
    nextest: &[String],
) -> Result<Fate, String> {
    let undo = match tree.change(&mutation.file, &mutation.old, &mutation.new) {
        Ok(undo) => undo,
        Err(error) => return Ok(Fate::Broken(error)),
    };
    let shim = match tree.build() {
        Ok(shim) => shim,
        Err(error) => return Ok(Fate::Broken(error)),
    };
    drop(undo);
    for stage in stages {
        let tests = (*stage == Stage::First).then_some(mutation.first.as_str());
        let mut seen = failures(&shim, tests, nextest)?;
        // A check may fail by accident on a busy machine, hardly twice; and one that fails
        // without the defect too proves nothing.
        for (path, fails) in [(&*shim, true), (sound, false)] {
            if seen.is_empty() {
                break;
            }
            let names: Vec<String> = seen.iter().take(5).map(|t| exactly(t)).collect();
            let again = failures(path, Some(&names.join(" | ")), nextest)?;
            seen = seen.into_iter().take(5).collect();
            seen.retain(|test| again.contains(test) == fails);
        }
        if !seen.is_empty() {
            return Ok(Fate::Caught(seen.into_iter().collect()));
        }
    }
    if stages.contains(&Stage::All) {
        return Ok(Fate::Survived);
    }
    Ok(Fate::Broken("its first checks do not notice".to_owned()))
}

/// The filter for one check, `file::test`.
fn exactly(check: &str) -> String {
    let (file, test) = check.split_once("::").unwrap_or(("", check));
    format!("(binary({file}) & test(={test}))")
}

/// The checks that fail on the shim at `path`.
fn failures(
    path: &Path,
    tests: Option<&str>,
    nextest: &[String],
) -> Result<BTreeSet<String>, String> {
    let options = Options {
        runtime: "runc".to_owned(),
        tests: tests.map(str::to_owned),
        nextest: nextest.to_vec(),
        jobs: Some("4".to_owned()),
        ..Options::default()
    };
    let mut failed = BTreeSet::new();
    run::run(path, &options, &mut |outcome, _| {
        if matches!(outcome.raw, Raw::Failed(_)) {
            failed.insert(outcome.test);
        }
    })?;
    Ok(failed)
}
