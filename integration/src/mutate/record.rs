//! The record of the rounds, in Markdown: one row for each defect, in the order of the manifest.

use std::fmt::Write as _;
use std::path::Path;

use super::{Fate, Mutation, Rows};

/// Puts what a round found into the table at `path`; the rows of other defects stay as they are.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(path: &Path, all: &[Mutation], rows: &Rows) -> Result<(), String> {
    // One that is not there yet has no rows.
    let before = std::fs::read_to_string(path).unwrap_or_default();
    std::fs::write(path, table(all, rows, &before)).map_err(|e| format!("{}: {e}", path.display()))
}

/// The record of what a round found, with the rows of `before` for what it did not try.
///
/// A row of `before` whose defect is described otherwise by now counts as not tried.
pub(super) fn table(all: &[Mutation], rows: &Rows, before: &str) -> String {
    let (mut lines, mut untried) = (Vec::new(), Vec::new());
    for mutation in all {
        let head = format!(
            "| {} | {} | {} |",
            mutation.name,
            mutation.what,
            mutation.file.display()
        );
        let fate = rows.get(&mutation.name);
        if let Some(fate) = fate.filter(|fate| !matches!(fate, Fate::Broken(_))) {
            lines.push(format!("{head} {} |", found(fate)));
        } else if let Some(line) = before.lines().find(|l| l.starts_with(&head)) {
            lines.push(line.to_owned());
        } else {
            untried.push(mutation.name.as_str());
        }
    }
    let caught = lines.iter().filter(|l| l.ends_with("` |")).count();
    let mut text = format!(
        "# Mutations\n\nWritten by `make mutate`: each row is a small defect, put into the shim \
         alone, and the checks of the conformance suite that fail with it, twice each, and pass \
         without it (of more than five, five are named). {caught} of {} are caught. The defects \
         stand in `integration/mutations.toml`.\n\n\
         | defect | what is wrong | where | caught by |\n|---|---|---|---|\n",
        lines.len()
    );
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    if !untried.is_empty() {
        let _ = writeln!(text, "\nListed and not yet tried: {}.", untried.join(", "));
    }
    text
}

/// The last cell of a row.
fn found(fate: &Fate) -> String {
    match fate {
        Fate::Caught(checks) => {
            let checks: Vec<String> = checks.iter().map(|c| format!("`{c}`")).collect();
            checks.join("<br>")
        }
        other => other.told(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fate, Mutation, Rows, table};

    fn defect(name: &str) -> Mutation {
        Mutation {
            name: name.to_owned(),
            what: "it is wrong".to_owned(),
            file: "a.rs".into(),
            old: String::new(),
            new: String::new(),
            first: String::new(),
        }
    }

    #[test]
    fn rounds_add_up() {
        let all = ["a", "b", "c"].map(defect);
        let caught = || Fate::Caught(vec!["events::x".to_owned()]);
        let first = table(
            &all,
            &Rows::from([("b".to_owned(), caught()), ("c".to_owned(), Fate::Survived)]),
            "",
        );
        assert!(first.contains("1 of 2 are caught"), "{first}");
        assert!(first.ends_with("not yet tried: a.\n"), "{first}");
        let second = table(
            &all,
            &Rows::from([("a".to_owned(), caught()), ("c".to_owned(), caught())]),
            &first,
        );
        assert!(second.contains("3 of 3 are caught"), "{second}");
        assert!(!second.contains("not yet tried"), "{second}");
        assert!(second.contains("| b | it is wrong | a.rs | `events::x` |\n"));
    }

    #[test]
    fn a_defect_that_was_changed_is_untried() {
        let before = "| a | it was wrong | a.rs | `events::x` |\n";
        let text = table(&[defect("a")], &Rows::new(), before);
        assert!(text.contains("not yet tried: a"), "{text}");
    }
}
