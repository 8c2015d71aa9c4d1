//! The table of keys: for each one where its value goes, or why it has no effect and what
//! replaces it. The first row that fits a key decides.
//!
//! Keys have the names of version 2 here; [`super::spelling`] has those of the other versions.

mod cri;
mod general;

use super::Config;
use super::slot::Slot;

/// A row: a key, and what is done with its value. `*` stands for any one part of a path, `**` at
/// the end for any rest.
pub(super) struct Key {
    pub(super) path: &'static [&'static str],
    pub(super) rule: Rule,
}

/// What is done with the value of a key.
pub(super) enum Rule {
    /// It goes here and is in force. The parts that `*` and `**` stood for are handed in.
    Force(fn(&mut Config, Vec<String>) -> Slot<'_>),
    /// It goes here, and whoever wrote it is told what it is called now.
    Renamed(fn(&mut Config, Vec<String>) -> Slot<'_>, &'static str),
    /// It is dealt with by whoever reads the file.
    Reader,
    /// It has no effect; what is done instead, and what to do.
    Vain(&'static str, &'static str),
}

const fn key(path: &'static [&'static str], rule: Rule) -> Key {
    Key { path, rule }
}

/// Every key that is known.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    general::KEYS.iter().chain(cri::KEYS)
}

impl Key {
    /// What the wildcards of the row stand for in `path`; `None` when the row does not fit.
    pub(super) fn fits(&self, path: &[String]) -> Option<Vec<String>> {
        let mut stood_for = Vec::new();
        for (at, part) in self.path.iter().enumerate() {
            match (*part, path.get(at)) {
                ("**", Some(_)) => {
                    stood_for.extend_from_slice(&path[at..]);
                    return Some(stood_for);
                }
                ("*", Some(name)) => stood_for.push(name.clone()),
                (part, Some(name)) if part == name => {}
                _ => return None,
            }
        }
        (path.len() == self.path.len()).then_some(stood_for)
    }

    /// Whether the row is about something within the table `path`.
    pub(super) fn is_within(&self, path: &[String]) -> bool {
        self.path.len() > path.len()
            && self
                .path
                .iter()
                .zip(path)
                .all(|(part, name)| part == name || *part == "*")
    }

    /// Whether `path` is something within the value of the row, which is no table.
    pub(super) fn is_around(&self, path: &[String]) -> bool {
        let here = &path[..self.path.len().min(path.len())];
        path.len() > self.path.len() && self.fits(here).is_some()
    }
}
