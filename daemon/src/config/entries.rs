//! From the text of a configuration file to its entries: the path of each key, its value and its
//! line. Nothing here knows what a key means.

use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;

/// A key, from the outermost table inwards.
pub(super) type KeyPath = Vec<String>;

/// One key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Where it is, in the words of the version that the file is of; later of version 2.
    pub(super) path: KeyPath,
    /// The key as it is written.
    written: String,
    /// What is not a table; or a table that is empty.
    pub(super) value: Value,
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

impl Entry {
    /// The key as it is written.
    pub(super) fn name(&self) -> &str {
        &self.written
    }

    pub(super) fn error(&self, text: impl Into<String>, remedy: &str) -> Problem {
        Problem::error(&self.file, self.line, text, remedy)
    }

    pub(super) fn warning(&self, text: impl Into<String>, remedy: &str) -> Problem {
        Problem::warning(&self.file, self.line, text, remedy)
    }
}

/// A key path in TOML's words.
pub(super) fn name<S: AsRef<str>>(path: &[S]) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let parts: Vec<String> = path
        .iter()
        .map(|part| match part.as_ref() {
            part if !part.is_empty() && part.chars().all(bare) => part.to_owned(),
            part => format!("{part:?}"),
        })
        .collect();
    parts.join(".")
}

/// Reads the entries of the file `file` with the contents `text`, in the order of their lines.
///
/// # Errors
/// Everything about it that is not TOML.
pub(super) fn read(file: &Path, text: &str) -> Result<Vec<Entry>, Vec<Problem>> {
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|error| {
                let line = line_of(error.span().map_or(0, |span| span.start));
                Problem::error(file, line, error.message(), "mend the TOML")
            })
            .collect();
        problems.sort_by_key(|problem| problem.line);
        problems.dedup_by_key(|problem| problem.line);
        return Err(problems);
    }
    let mut found = Vec::new();
    flatten(&mut Vec::new(), table.get_ref(), &mut found);
    let mut entries = Vec::with_capacity(found.len());
    let mut problems = Vec::new();
    found.sort_by_key(|(_, at, _)| *at);
    for (path, at, value) in found {
        match plain(value) {
            Ok(value) => entries.push(Entry {
                written: name(&path),
                path,
                value,
                file: file.to_owned(),
                line: line_of(at),
            }),
            Err(number) => {
                let text = format!("{}: {number} is out of range", name(&path));
                let remedy = "give a number of at most 64 bits";
                problems.push(Problem::error(file, line_of(at), text, remedy));
            }
        }
    }
    if problems.is_empty() {
        Ok(entries)
    } else {
        Err(problems)
    }
}

fn flatten<'t>(
    path: &mut KeyPath,
    table: &'t DeTable<'_>,
    found: &mut Vec<(KeyPath, usize, &'t DeValue<'t>)>,
) {
    for (key, value) in table {
        path.push(key.get_ref().clone().into_owned());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(path, inner, found),
            other => found.push((path.clone(), key.span().start, other)),
        }
        path.pop();
    }
}

/// The value without the places it came from.
///
/// # Errors
/// A number that does not fit.
fn plain(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| number.as_str().to_owned())?,
        ),
        DeValue::Float(number) => Value::Float(
            number
                .as_str()
                .parse()
                .map_err(|_| number.as_str().to_owned())?,
        ),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(*value),
        DeValue::Array(values) => Value::Array(
            values
                .iter()
                .map(|value| plain(value.get_ref()))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => Value::Table(
            table
                .iter()
                .map(|(key, value)| {
                    let key = key.get_ref().clone().into_owned();
                    Ok((key, plain(value.get_ref())?))
                })
                .collect::<Result<_, String>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_their_lines() {
        let text = "a = 1\n[b]\n  'c.d' = [1,\n 2]\n  e = { f = 0x10 }\n[empty]\n";
        let entries = read(Path::new("f"), text).unwrap();
        let seen: Vec<(String, usize)> = entries
            .iter()
            .map(|e| (e.name().to_owned(), e.line))
            .collect();
        let expected = [("a", 1), ("b.\"c.d\"", 3), ("b.e.f", 5), ("empty", 6)];
        assert_eq!(seen, expected.map(|(name, line)| (name.to_owned(), line)));
        assert_eq!(entries[2].value, Value::Integer(16));
    }

    #[test]
    fn what_is_not_toml_is_said_line_by_line() {
        let lines = |text: &str| -> Vec<usize> {
            let problems = read(Path::new("f"), text).unwrap_err();
            problems.iter().map(|problem| problem.line).collect()
        };
        assert_eq!(lines("a = 1\nb = \nc = 2\n[d\n"), [2, 4]);
        assert_eq!(lines("a = 1\n\na = 2\n"), [3]);
        assert_eq!(lines("a = 99999999999999999999\n"), [1]);
    }
}
