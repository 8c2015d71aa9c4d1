//! The table on the terminal and the JSON file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::groups::Groups;
use super::subject::Subject;
use crate::target;

/// What became of one check on one shim.
#[derive(Debug)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not, and nobody said why it should not.
    Fail(String),
    /// It does not, for a reason that `differences.toml` gives.
    Differs {
        /// What the shim does instead.
        reason: String,
        /// Where it is told.
        issue: Option<String>,
    },
    /// This machine or this flavour of shim cannot be asked.
    NotApplicable(String),
}

impl Verdict {
    /// In a word, for the table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "FAIL",
            Self::Differs { .. } => "differs",
            Self::NotApplicable(_) => "n/a",
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Pass => None,
            Self::Fail(reason) | Self::NotApplicable(reason) => Some(reason.clone()),
            Self::Differs {
                reason,
                issue: None,
            } => Some(reason.clone()),
            Self::Differs {
                reason,
                issue: Some(issue),
            } => Some(format!("{reason} [{issue}]")),
        }
    }
}

/// One check on one shim.
#[derive(Debug)]
pub struct Check {
    /// The number of its group.
    pub group: usize,
    /// `file::test`.
    pub test: String,
    /// What became of it.
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
}

/// All checks on one shim.
#[derive(Debug)]
pub struct Column {
    /// The shim.
    pub subject: Subject,
    /// The checks, by group and name.
    pub checks: Vec<Check>,
    /// Listed differences that were not seen.
    pub stale: Vec<String>,
}

impl Column {
    /// Whether no check failed, or the shim is only shown.
    pub fn conforms(&self) -> bool {
        !self.subject.judged() || self.count("FAIL") == 0
    }

    fn count(&self, word: &str) -> usize {
        self.checks
            .iter()
            .filter(|c| c.verdict.word() == word)
            .count()
    }

    fn totals(&self) -> String {
        format!(
            "{} checks: {} pass, {} differ as listed, {} not applicable, {} fail",
            self.checks.len(),
            self.count("pass"),
            self.count("differs"),
            self.count("n/a"),
            self.count("FAIL"),
        )
    }
}

/// A check's name as a sentence, with the file or state it stands under where that says more.
fn sentence(test: &str) -> String {
    let mut parts: Vec<&str> = test.split("::").collect();
    // The first is the test file, which the group stands for.
    if parts.len() > 1 {
        parts.remove(0);
    }
    parts.join(": ").replace('_', " ")
}

/// The table: one line for each check with a word for each shim, reasons below what is no pass.
pub fn table(columns: &[Column], groups: &Groups) -> String {
    let mut rows: BTreeMap<(usize, &str), Vec<Option<&Check>>> = BTreeMap::new();
    for (at, column) in columns.iter().enumerate() {
        for check in &column.checks {
            let row = rows.entry((check.group, &check.test));
            row.or_insert_with(|| vec![None; columns.len()])[at] = Some(check);
        }
    }
    let mut text = String::new();
    let mut last = None;
    for ((group, test), cells) in &rows {
        if last != Some(*group) {
            last = Some(*group);
            let heads: String = columns
                .iter()
                .map(|c| format!("{:<10}", c.subject.kind))
                .collect();
            let _ = writeln!(text, "\n{heads}== {}", groups.title(*group));
        }
        let words: String = cells
            .iter()
            .map(|c| format!("{:<10}", c.map_or("-", |c| c.verdict.word())))
            .collect();
        let _ = writeln!(text, "{words}{}", sentence(test));
        for (column, check) in columns.iter().zip(cells) {
            if let Some(reason) = check.and_then(|c| c.verdict.reason()) {
                let indent = " ".repeat(columns.len() * 10 + 2);
                let _ = writeln!(text, "{indent}{}: {reason}", column.subject.kind);
            }
        }
    }
    text.push('\n');
    for column in columns {
        let subject = &column.subject;
        let shown = if subject.judged() {
            ""
        } else {
            " (shown, not judged)"
        };
        let _ = writeln!(text, "{:<10}{}{shown}", subject.kind, column.totals());
        for test in &column.stale {
            let _ = writeln!(
                text,
                "          stale: differences.toml lists {test}, which passed"
            );
        }
    }
    text
}

/// Everything as JSON: shims, their totals, and each check of each group.
pub fn json(columns: &[Column], groups: &Groups, runtime: &str) -> Value {
    let shims: Vec<Value> = columns.iter().map(|c| shim_json(c, groups)).collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "runtime": runtime,
        "machine": {
            "kernel": kernel.trim(),
            "cgroup": if target::cgroup_v2() { "v2" } else { "v1" },
        },
        "shims": shims,
    })
}

fn shim_json(column: &Column, groups: &Groups) -> Value {
    let of_group = |group: usize| -> Vec<Value> {
        let checks = column.checks.iter().filter(|c| c.group == group);
        checks
            .map(|c| {
                json!({
                    "check": sentence(&c.test),
                    "test": c.test,
                    "result": c.verdict.word().to_lowercase(),
                    "reason": c.verdict.reason(),
                    "seconds": c.seconds,
                })
            })
            .collect()
    };
    let by_group: Vec<Value> = (0..groups.count())
        .map(|group| (group, of_group(group)))
        .filter(|(_, checks)| !checks.is_empty())
        .map(|(group, checks)| json!({"group": groups.title(group), "checks": checks}))
        .collect();
    json!({
        "kind": column.subject.kind,
        "path": column.subject.path,
        "version": column.subject.version,
        "totals": {
            "checks": column.checks.len(),
            "pass": column.count("pass"),
            "differs": column.count("differs"),
            "not_applicable": column.count("n/a"),
            "fail": column.count("FAIL"),
        },
        "conforms": column.conforms(),
        "stale": column.stale,
        "groups": by_group,
    })
}
