//! The conformance suite: every promise of a runtime-v2 shim as a named check, on any shim.
//!
//! The checks are the tests of `integration/tests` that play containerd over ttrpc; `run.rs` has
//! nextest run them, `differences.rs` holds what other shims are known to do otherwise, `groups.rs`
//! sorts the checks by call, `results.rs` is what the JSON file holds, `report.rs` prints the table and
//! `record.rs` writes a page of several runs. One shim gives a table of checks, several a comparison
//! side by side.
#![expect(
    clippy::print_stderr,
    reason = "progress goes to standard error, so that the table alone is on standard output"
)]

pub mod differences;
pub mod groups;
pub mod options;
pub mod pattern;
pub mod record;
pub mod report;
pub mod results;
pub mod run;
pub mod subject;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use differences::Differences;
use groups::Groups;
use options::Options;
use results::{Check, Results, Shim, Verdict};
use run::{Outcome, Raw};
use subject::Subject;

use crate::target;

/// The whole program. The exit code is 1 when a check failed, 2 when the suite could not run.
pub fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if options.runtime == "crun" {
        crate::hybrid::hide();
    }
    match suite(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs everything that the command line asks for; true when no check failed.
fn suite(options: &Options) -> Result<bool, String> {
    let groups = Groups::load()?;
    let differences = Differences::load()?;
    let mut results = Results::default();
    for (label, path) in &options.shims {
        let subject = Subject::look(label.as_deref(), path)?;
        eprintln!(
            "== {} ({}, {})",
            subject.kind,
            path.display(),
            subject.version
        );
        let shim = examine(subject, options, &groups, &differences)?;
        results.shims.push(shim);
    }
    print!("{}", report::table(&results));
    if let Some(path) = &options.json {
        results.write(path)?;
    }
    let enough = options.tests.is_some() || results.shims.iter().all(|s| s.all() >= groups.least);
    if !enough {
        println!("FAIL: fewer than {} checks ran", groups.least);
    }
    if let Some(path) = &options.record {
        for earlier in &options.with {
            let shims = Results::read(earlier)?.shims;
            let judged = shims.into_iter().map(|s| s.judge(&differences));
            results.shims.extend(judged);
        }
        let page = record::page(&results);
        std::fs::write(path, page).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(enough && results.shims.iter().all(Shim::conforms))
}

/// A check that ended so, not yet judged.
fn check(outcome: Outcome) -> Check {
    let (result, reason, seen) = match outcome.raw {
        Raw::Passed => (Verdict::Pass, None, None),
        Raw::Skipped(reason) => (Verdict::NotApplicable, Some(reason), None),
        Raw::Failed(words) => (Verdict::Fail, None, Some(words)),
        Raw::Differs(words) => (
            Verdict::Fail,
            None,
            Some(format!("not in differences.toml: {words}")),
        ),
    };
    Check {
        test: outcome.test,
        result,
        reason,
        issue: None,
        seen,
        seconds: outcome.seconds,
    }
}

/// Runs the suite on one shim and judges every check.
fn examine(
    subject: Subject,
    options: &Options,
    groups: &Groups,
    differences: &Differences,
) -> Result<Shim, String> {
    let mut done = 0;
    let clear = if std::io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    let mut checks = Vec::new();
    run::run(&subject.path, options, &mut |outcome, all| {
        done += 1;
        let known = differences.find(&outcome.test, &subject.kind, &options.runtime);
        let check = check(outcome).judge(known);
        // A pass is a passing line; what is not stays on the screen.
        let plain = check.result == Verdict::Pass && !clear.is_empty();
        let end = if plain { "" } else { "\n" };
        eprint!(
            "{clear}{done:4}/{all} {:8} {}{end}",
            check.result.word(),
            check.test
        );
        checks.push(check);
    })?;
    eprint!("{clear}");
    let stale = if options.tests.is_none() {
        let differs = |test: &str| {
            let mut no_pass = checks.iter().filter(|c| c.result != Verdict::Pass);
            no_pass.any(|c| c.test == test)
        };
        let tests: Vec<&str> = checks.iter().map(|c| c.test.as_str()).collect();
        differences.stale(&subject.kind, &options.runtime, &tests, &differs)
    } else {
        Vec::new()
    };
    Ok(Shim {
        kind: subject.kind,
        path: subject.path,
        version: subject.version,
        runtime: options.runtime.clone(),
        machine: machine(),
        stale,
        groups: groups.sort(checks),
    })
}

/// The kernel and the version of its cgroups.
fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What stands after the version names the machine's maker.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let cgroup = if target::cgroup_v2() { "v2" } else { "v1" };
    format!("Linux {kernel}, cgroup {cgroup}")
}
