//! What a run found, as it is kept in a JSON file and read again for a page of several runs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::differences::{Difference, Differences};

/// What became of one check on one shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It holds.
    #[serde(rename = "pass")]
    Pass,
    /// It does not, and nobody said why it should not.
    #[serde(rename = "fail")]
    Fail,
    /// It does not, for a reason that `differences.toml` gives.
    #[serde(rename = "differs")]
    Differs,
    /// This machine or this flavour of shim cannot be asked.
    #[serde(rename = "n/a")]
    NotApplicable,
}

impl Verdict {
    /// In a word, for the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Differs => "differs",
            Self::NotApplicable => "n/a",
        }
    }
}

/// One check on one shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// `file::test`.
    pub test: String,
    /// What became of it.
    pub result: Verdict,
    /// Why it is no pass.
    pub reason: Option<String>,
    /// Where that is told, for a known difference.
    pub issue: Option<String>,
    /// The words of a check that did not hold, whether that is known or not.
    #[serde(default)]
    pub seen: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Check {
    /// Judges a check by what was seen of it and by what is known of the shim; a pass and what does
    /// not apply stay as they are.
    pub fn judge(mut self, known: Option<&Difference>) -> Self {
        let Some(seen) = &self.seen else { return self };
        (self.result, self.reason, self.issue) = match known {
            Some(known) => {
                let (reason, issue) = (known.reason.clone(), known.issue.clone());
                (Verdict::Differs, Some(reason), Some(issue))
            }
            None => (Verdict::Fail, Some(seen.clone()), None),
        };
        self
    }

    /// The check's name as a sentence, with the state it stands under where that says more.
    pub fn sentence(&self) -> String {
        // The first part is the test file, which the group stands for.
        let name = self.test.split_once("::").map_or(&*self.test, |(_, n)| n);
        name.replace("::", ": ").replace('_', " ")
    }

    /// The reason and where it is told.
    pub fn told(&self) -> Option<String> {
        let reason = self.reason.as_ref()?;
        Some(match &self.issue {
            Some(issue) => format!("{reason} [{issue}]"),
            None => reason.clone(),
        })
    }
}

/// The checks of one call, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Its title.
    pub group: String,
    /// Its checks.
    pub checks: Vec<Check>,
}

impl Group {
    /// How many checks ended so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|c| c.result == verdict).count()
    }
}

/// All checks on one shim with one runtime.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shim {
    /// The kind, by which differences are listed.
    pub kind: String,
    /// The program.
    pub path: PathBuf,
    /// Its version, as it tells it.
    pub version: String,
    /// The OCI runtime below it.
    pub runtime: String,
    /// The kernel and the version of its cgroups.
    pub machine: String,
    /// Listed differences that were not seen.
    pub stale: Vec<String>,
    /// The groups that have checks, in the order of `conformance.toml`.
    pub groups: Vec<Group>,
}

impl Shim {
    /// Every check.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.groups.iter().flat_map(|g| &g.checks)
    }

    /// How many checks ended so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.groups.iter().map(|g| g.count(verdict)).sum()
    }

    /// How many checks there were.
    pub fn all(&self) -> usize {
        self.checks().count()
    }

    /// The same, judged by the differences as they are listed now.
    pub fn judge(mut self, differences: &Differences) -> Self {
        for group in &mut self.groups {
            let checks = std::mem::take(&mut group.checks);
            let known = |c: &Check| differences.find(&c.test, &self.kind, &self.runtime);
            group.checks = checks
                .into_iter()
                .map(|c| {
                    let known = known(&c);
                    c.judge(known)
                })
                .collect();
        }
        self
    }

    /// Whether no check failed.
    pub fn conforms(&self) -> bool {
        self.count(Verdict::Fail) == 0
    }

    /// The sums in words.
    pub fn totals(&self) -> String {
        format!(
            "{} checks: {} pass, {} differ as listed, {} not applicable, {} fail",
            self.all(),
            self.count(Verdict::Pass),
            self.count(Verdict::Differs),
            self.count(Verdict::NotApplicable),
            self.count(Verdict::Fail),
        )
    }
}

/// Several shims side by side.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// In the order of the columns.
    pub shims: Vec<Shim>,
}

impl Results {
    /// Reads what an earlier run has written.
    ///
    /// # Errors
    /// What is wrong with the file, with its path.
    pub fn read(path: &Path) -> Result<Self, String> {
        let failed = |e: String| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| failed(e.to_string()))
    }

    /// Writes everything.
    ///
    /// # Errors
    /// What is wrong with the file, with its path.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let failed = |e: String| format!("{}: {e}", path.display());
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(e.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|e| failed(e.to_string()))
    }

    /// The titles of all groups, in the order of the first shim that has each.
    pub fn titles(&self) -> Vec<&str> {
        let mut titles: Vec<&str> = Vec::new();
        for group in self.shims.iter().flat_map(|s| &s.groups) {
            if !titles.contains(&group.group.as_str()) {
                titles.push(&group.group);
            }
        }
        titles
    }
}
