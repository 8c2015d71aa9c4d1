//! The conformance suite: every promise of a runtime-v2 shim as a named check, on any shim.
//!
//! The checks are the tests of `integration/tests` that play containerd over ttrpc; `run.rs` has
//! nextest run them, `differences.rs` holds what other shims are known to do otherwise, `groups.rs`
//! sorts the checks by call and `report.rs` prints the table and the JSON. One shim gives a
//! table of checks, several a comparison side by side.
#![expect(
    clippy::print_stderr,
    reason = "progress goes to standard error, so that the table alone is on standard output"
)]

pub mod differences;
pub mod groups;
pub mod options;
pub mod pattern;
pub mod report;
pub mod run;
pub mod subject;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use differences::Differences;
use groups::Groups;
use options::Options;
use report::{Check, Column, Verdict};
use run::Raw;
use subject::Subject;

/// The whole program. The exit code is 1 when a check failed, 2 when the suite could not run.
pub fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
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
    let mut columns = Vec::new();
    for (label, path) in &options.shims {
        let subject = Subject::look(label.as_deref(), path)?;
        eprintln!(
            "== {} ({}, {})",
            subject.kind,
            path.display(),
            subject.version
        );
        columns.push(column(subject, options, &groups, &differences)?);
    }
    print!("{}", report::table(&columns, &groups));
    if let Some(path) = &options.json {
        let text = report::json(&columns, &groups, &options.runtime).to_string();
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let enough = options.tests.is_some() || columns.iter().all(|c| c.checks.len() >= groups.least);
    if !enough {
        println!("FAIL: fewer than {} checks ran", groups.least);
    }
    Ok(enough && columns.iter().all(Column::conforms))
}

/// Runs the suite on one shim and judges every check.
fn column(
    subject: Subject,
    options: &Options,
    groups: &Groups,
    differences: &Differences,
) -> Result<Column, String> {
    let mut done = 0;
    let clear = if std::io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    let judge = |outcome: &run::Outcome| {
        let known = differences.find(&outcome.test, &subject.kind, &options.runtime);
        match (&outcome.raw, known) {
            (Raw::Passed, _) => Verdict::Pass,
            (Raw::Skipped(reason), _) => Verdict::NotApplicable(reason.clone()),
            (Raw::Differs(_) | Raw::Failed(_), Some(known)) => Verdict::Differs {
                reason: known.reason.clone(),
                issue: known.issue.clone(),
            },
            (Raw::Differs(reason), None) => {
                Verdict::Fail(format!("not in differences.toml: {reason}"))
            }
            (Raw::Failed(reason), None) => Verdict::Fail(reason.clone()),
        }
    };
    let mut checks = Vec::new();
    run::run(&subject.path, options, &mut |outcome, all| {
        done += 1;
        let verdict = judge(&outcome);
        // A pass is a passing line; what is not stays on the screen.
        let plain = matches!(verdict, Verdict::Pass) && !clear.is_empty();
        let end = if plain { "" } else { "\n" };
        eprint!(
            "{clear}{done:4}/{all} {:8} {}{end}",
            verdict.word(),
            outcome.test
        );
        checks.push(Check {
            group: groups.of(&outcome.test),
            test: outcome.test,
            verdict,
            seconds: outcome.seconds,
        });
    })?;
    eprint!("{clear}");
    checks.sort_by(|a, b| (a.group, &a.test).cmp(&(b.group, &b.test)));
    let stale = if options.tests.is_none() {
        let differs = |test: &str| {
            checks
                .iter()
                .any(|c| c.test == test && !matches!(c.verdict, Verdict::Pass))
        };
        let tests: Vec<&str> = checks.iter().map(|c| c.test.as_str()).collect();
        differences.stale(&subject.kind, &options.runtime, &tests, &differs)
    } else {
        Vec::new()
    };
    Ok(Column {
        subject,
        checks,
        stale,
    })
}
