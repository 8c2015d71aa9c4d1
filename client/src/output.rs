//! What goes to stdout and stderr: tables, JSON, and colour where a person looks at a terminal
//! and has not said no (`NO_COLOR`).

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::error::{Context, Result};

/// A colour of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Something failed.
    Red,
    /// Something lives.
    Green,
    /// Something is held up.
    Yellow,
    /// Something is over.
    Dim,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Red => "1;31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Dim => "2",
        }
    }
}

fn has_colour(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !refused && !dumb && stream.is_terminal()
}

fn painted(text: &str, colour: Option<Colour>) -> String {
    match colour {
        Some(colour) => format!("\x1b[{}m{text}\x1b[0m", colour.code()),
        None => text.to_owned(),
    }
}

/// Says on stderr what went wrong. An error there can be told to nobody.
pub(crate) fn complain(what: &dyn Display) {
    let mut stderr = io::stderr().lock();
    let name = painted("wherry:", Some(Colour::Red).filter(|_| has_colour(&stderr)));
    let _ = writeln!(stderr, "{name} {what}");
}

/// Writes text to stdout at once.
///
/// # Errors
/// Those of the stream; a reader that went away is one.
pub(crate) fn say(text: impl Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .about("stdout")
}

/// Writes a value as JSON, over several lines for a document, in one line for an item of a stream.
///
/// # Errors
/// As [`say`].
pub(crate) fn json(value: &serde_json::Value, in_one_line: bool) -> Result<()> {
    if in_one_line {
        say(value)
    } else {
        say(format_args!("{value:#}"))
    }
}

/// One field of a table.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        let text = text.into();
        Self { text, colour: None }
    }
}

impl Cell {
    pub(crate) fn painted(text: String, colour: Colour) -> Self {
        let colour = Some(colour);
        Self { text, colour }
    }
}

/// Writes rows under a heading, columns three blanks apart.
///
/// # Errors
/// As [`say`].
pub(crate) fn table(heading: &[&str], rows: &[Vec<Cell>]) -> Result<()> {
    let text = laid_out(heading, rows, has_colour(&io::stdout()));
    say(text.trim_end_matches('\n'))
}

fn laid_out(heading: &[&str], rows: &[Vec<Cell>], colours: bool) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|word| word.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let head = heading.iter().map(|word| Cell::from(*word)).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text += &painted(&cell.text, cell.colour.filter(|_| colours));
            if column + 1 < row.len() {
                let blanks = width.saturating_sub(cell.text.chars().count()) + 3;
                text.extend(std::iter::repeat_n(' ', blanks));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_colours_take_no_room() {
        let rows = [
            vec![
                Cell::from("a"),
                Cell::painted("up".into(), Colour::Green),
                "x".into(),
            ],
            vec!["longer".into(), "stopped".into(), "y".into()],
        ];
        let plain = "ID       STATUS    C\na        up        x\nlonger   stopped   y\n";
        assert_eq!(laid_out(&["ID", "STATUS", "C"], &rows, false), plain);
        let coloured = laid_out(&["ID", "STATUS", "C"], &rows, true);
        assert!(coloured.contains("\x1b[32mup\x1b[0m        x"));
    }
}
