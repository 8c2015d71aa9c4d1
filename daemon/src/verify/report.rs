//! What verify says: a line for each finding, what was done about it, and what remains to be done.

use std::fmt::{self, Write as _};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// Something is lost, damaged or contradicts something else.
    Problem,
    /// Harmless: what a killed daemon may leave, and what clients may leave behind.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What it is about, such as `blob sha256:…`.
    pub subject: String,
    /// What is wrong.
    pub text: String,
    /// What `--repair` does or did about it; empty for nothing.
    pub repair: String,
    /// What the operator is to do; empty for nothing.
    pub remedy: String,
    /// Whether nothing of it is left.
    pub mended: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.mended, self.grade) {
            (true, _) => "mended",
            (false, Grade::Problem) => "problem",
            (false, Grade::Note) => "note",
        };
        write!(f, "{word}: {}: {}", self.subject, self.text)?;
        for rest in [&self.repair, &self.remedy] {
            if !rest.is_empty() {
                write!(f, "; {rest}")?;
            }
        }
        Ok(())
    }
}

impl Finding {
    /// As an object of JSON, for programs.
    pub fn json(&self) -> String {
        let grade = match self.grade {
            Grade::Problem => "problem",
            Grade::Note => "note",
        };
        serde_json::json!({
            "grade": grade,
            "subject": self.subject,
            "text": self.text,
            "repair": self.repair,
            "remedy": self.remedy,
            "mended": self.mended,
        })
        .to_string()
    }
}

/// What a repair does: a few words for who only looks, and the work, which says what it did.
pub(super) struct Repair<'a> {
    plan: &'a str,
    work: Box<dyn FnOnce() -> Result<String, String> + 'a>,
}

impl<'a> Repair<'a> {
    /// A repair that is announced as `--repair PLAN` and carried out by `work`.
    pub(super) fn new(plan: &'a str, work: impl FnOnce() -> Result<String, String> + 'a) -> Self {
        Self {
            plan,
            work: Box::new(work),
        }
    }
}

/// Takes findings, and carries out their repairs if that is wanted.
pub(super) struct Report<'a> {
    /// Whether to repair.
    pub(super) repairs: bool,
    tell: &'a mut dyn FnMut(&Finding),
    problems: usize,
    notes: usize,
    mended: usize,
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("repairs", &self.repairs)
            .finish_non_exhaustive()
    }
}

impl<'a> Report<'a> {
    /// Findings go to `tell`, at once.
    pub(super) fn new(repairs: bool, tell: &'a mut dyn FnMut(&Finding)) -> Self {
        Self {
            repairs,
            tell,
            problems: 0,
            notes: 0,
            mended: 0,
        }
    }

    /// A finding that only the operator can do something about.
    pub(super) fn problem(
        &mut self,
        subject: String,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Grade::Problem, subject, text.into(), None, remedy.into());
    }

    /// A harmless finding that nothing is to be done about.
    pub(super) fn note(&mut self, subject: String, text: impl Into<String>) {
        self.add(Grade::Note, subject, text.into(), None, String::new());
    }

    /// A finding with its repair. Where the repair leaves something for the operator to do,
    /// `remedy` says what, and the finding counts as open; else it is empty. Answers whether the
    /// repair was carried out.
    pub(super) fn mend(
        &mut self,
        grade: Grade,
        subject: String,
        text: impl Into<String>,
        repair: Repair<'_>,
        remedy: impl Into<String>,
    ) -> bool {
        self.add(grade, subject, text.into(), Some(repair), remedy.into())
    }

    fn add(
        &mut self,
        grade: Grade,
        subject: String,
        text: String,
        repair: Option<Repair<'_>>,
        remedy: String,
    ) -> bool {
        let mut finding = Finding {
            grade,
            subject,
            text,
            repair: String::new(),
            remedy,
            mended: false,
        };
        let mut done = false;
        match repair {
            Some(repair) if self.repairs => match (repair.work)() {
                Ok(what) => {
                    done = true;
                    finding.mended = finding.remedy.is_empty();
                    finding.repair = what;
                }
                Err(why) => finding.repair = format!("not mended: {why}"),
            },
            Some(repair) => finding.repair = format!("--repair {}", repair.plan),
            None => {}
        }
        match (finding.mended, grade) {
            (true, _) => self.mended += 1,
            (false, Grade::Problem) => self.problems += 1,
            (false, Grade::Note) => self.notes += 1,
        }
        (self.tell)(&finding);
        done
    }

    /// How many problems are left.
    pub(super) fn problems(&self) -> usize {
        self.problems
    }

    /// The figures, in one line.
    pub(super) fn sum(&self) -> String {
        let mut text = match self.problems {
            0 => "no problems".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        for (count, what) in [(self.notes, "harmless"), (self.mended, "mended")] {
            if count > 0 {
                // Writing to a String does not fail.
                let _ = write!(text, ", {count} {what}");
            }
        }
        text
    }
}

/// Some names of many, for a line.
pub(super) fn some<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 3;
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_counts_until_nothing_of_it_is_left() {
        let mut lines = Vec::new();
        let mut tell = |finding: &Finding| lines.push(finding.to_string());
        let mut report = Report::new(true, &mut tell);
        let fix = || Repair::new("fixes it", || Ok("fixed".to_owned()));
        report.mend(Grade::Problem, "a".to_owned(), "bad", fix(), "");
        report.mend(Grade::Problem, "b".to_owned(), "bad", fix(), "pull again x");
        let fails = Repair::new("fixes it", || Err("no room".to_owned()));
        report.mend(Grade::Problem, "c".to_owned(), "bad", fails, "");
        report.note("d".to_owned(), "odd");
        assert_eq!(report.sum(), "2 problems, 1 harmless, 1 mended");
        let mut tell = |finding: &Finding| lines.push(finding.to_string());
        let mut report = Report::new(false, &mut tell);
        report.mend(Grade::Problem, "e".to_owned(), "bad", fix(), "then sleep");
        assert_eq!(report.problems(), 1);
        assert_eq!(
            lines,
            [
                "mended: a: bad; fixed",
                "problem: b: bad; fixed; pull again x",
                "problem: c: bad; not mended: no room",
                "note: d: odd",
                "problem: e: bad; --repair fixes it; then sleep",
            ]
        );
        assert_eq!(some(1..=5), "1, 2, 3 and 2 more");
        assert_eq!(some(1..=3), "1, 2, 3");
    }
}
