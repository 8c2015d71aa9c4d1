//! The mutation round: puts small defects into a copy of our shim, one at a time, and sees whether
//! the conformance suite notices. A defect that it does not notice is a hole in the suite.
//!
//! The defects stand in `mutations.toml` as text to find and text to put in its place; `tree.rs`
//! copies, changes and builds. The record is `docs/mutations.md`, which the round writes.
#![expect(
    clippy::print_stderr,
    reason = "progress goes to standard error, so that the table alone is on standard output"
)]

mod tree;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;

use crate::conformance::options::Options;
use crate::conformance::pattern;
use crate::conformance::run::{self, Raw};
use tree::Tree;

const USAGE: &str = "\
usage: mutate [--only PATTERN] [--record FILE] [-- NEXTEST-ARGUMENTS]

  --only    try only the defects whose name fits (* is any text)
  --record  write the table to FILE";

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

/// What became of one defect.
enum Fate {
    /// These checks failed, twice each.
    Caught(Vec<String>),
    /// All checks passed.
    Survived,
    /// It does not apply or does not compile.
    Broken(String),
}

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
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => only = args.next().ok_or(USAGE)?,
            "--record" => record = Some(PathBuf::from(args.next().ok_or(USAGE)?)),
            "--" => nextest = args.by_ref().collect(),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let list: Mutations = crate::conformance::groups::read("mutations.toml")?;
    let chosen: Vec<&Mutation> = list
        .mutation
        .iter()
        .filter(|m| pattern::matches(&only, &m.name))
        .collect();
    let tree = Tree::copy()?;
    eprintln!("== without a defect");
    let shim = tree.build()?;
    // What fails without any defect, in this unoptimised build, proves nothing.
    let unsteady = failures(&shim, None, &nextest)?;
    if !unsteady.is_empty() {
        eprintln!("not counted, since they fail without a defect: {unsteady:?}");
    }
    let mut rows = Vec::new();
    for (at, mutation) in chosen.iter().enumerate() {
        let fate = fate(&tree, mutation, &unsteady, &nextest)?;
        eprintln!(
            "{:3}/{} {:32} {}",
            at + 1,
            chosen.len(),
            mutation.name,
            told(&fate)
        );
        rows.push((*mutation, fate));
        // After each, since the whole round takes long.
        if let Some(path) = &record {
            std::fs::write(path, report(&rows)).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    print!("{}", report(&rows));
    Ok(rows.iter().all(|(_, fate)| matches!(fate, Fate::Caught(_))))
}

/// Tries one defect: the checks that should notice first, all of them if these do not.
fn fate(
    tree: &Tree,
    mutation: &Mutation,
    unsteady: &BTreeSet<String>,
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
    for tests in [Some(mutation.first.as_str()), None] {
        let seen = failures(&shim, tests, nextest)?;
        let seen: Vec<String> = seen.difference(unsteady).take(5).cloned().collect();
        if seen.is_empty() {
            continue;
        }
        // A check may fail by accident on a busy machine, hardly twice.
        let names: Vec<String> = seen.iter().map(|t| exactly(t)).collect();
        let again = failures(&shim, Some(&names.join(" | ")), nextest)?;
        let twice: Vec<String> = seen.into_iter().filter(|t| again.contains(t)).collect();
        if !twice.is_empty() {
            drop(undo);
            return Ok(Fate::Caught(twice));
        }
    }
    drop(undo);
    Ok(Fate::Survived)
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

fn told(fate: &Fate) -> String {
    match fate {
        Fate::Caught(checks) => format!("caught by {}", checks.join(", ")),
        Fate::Survived => "SURVIVED".to_owned(),
        Fate::Broken(error) => format!("NOT TRIED: {error}"),
    }
}

/// The record, in Markdown.
fn report(rows: &[(&Mutation, Fate)]) -> String {
    let caught = rows
        .iter()
        .filter(|(_, f)| matches!(f, Fate::Caught(_)))
        .count();
    let mut text = format!(
        "# Mutations\n\nWritten by `make mutate`: each row is a small defect, put into the shim \
         alone, and the checks of the conformance suite that fail with it and pass without it \
         (each seen to fail twice; of more than five, five are named). {caught} of {} are caught. \
         The defects stand in `integration/mutations.toml`.\n\n\
         | defect | what is wrong | where | caught by |\n|---|---|---|---|\n",
        rows.len()
    );
    for (mutation, fate) in rows {
        let seen = match fate {
            Fate::Caught(checks) => {
                let checks: Vec<String> = checks.iter().map(|c| format!("`{c}`")).collect();
                checks.join("<br>")
            }
            other => told(other),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {seen} |",
            mutation.name,
            mutation.what,
            mutation.file.display()
        );
    }
    text
}
