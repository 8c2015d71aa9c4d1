//! `conformance.toml`: which check belongs to which call, and how many there must be at least.

use std::path::Path;

use serde::Deserialize;

use super::pattern;
use super::results::{self, Check};

/// The groups in the order of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// A whole run with fewer checks is no proof of conformance.
    pub least: usize,
    group: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    title: String,
    tests: Vec<String>,
}

impl Groups {
    /// Reads the manifest of the tree.
    ///
    /// # Errors
    /// What is wrong with the file, with its path.
    pub fn load() -> Result<Self, String> {
        read("conformance.toml")
    }

    /// The number of the group that a check belongs to: the first with a pattern for it, else one
    /// past the last.
    pub fn of(&self, test: &str) -> usize {
        self.group
            .iter()
            .position(|g| g.tests.iter().any(|p| pattern::matches(p, test)))
            .unwrap_or(self.group.len())
    }

    /// The title of a group by its number.
    pub fn title(&self, group: usize) -> &str {
        self.group.get(group).map_or("others", |g| &g.title)
    }

    /// Every pattern of every group.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.group
            .iter()
            .flat_map(|g| g.tests.iter().map(String::as_str))
    }

    /// The checks by group and name; groups without checks are left out.
    pub fn sort(&self, mut checks: Vec<Check>) -> Vec<results::Group> {
        checks.sort_by(|a, b| a.test.cmp(&b.test));
        let mut groups: Vec<results::Group> = (0..=self.group.len())
            .map(|number| results::Group {
                group: self.title(number).to_owned(),
                checks: Vec::new(),
            })
            .collect();
        for check in checks {
            groups[self.of(&check.test)].checks.push(check);
        }
        groups.retain(|g| !g.checks.is_empty());
        groups
    }
}

/// Reads a manifest of this crate.
pub(crate) fn read<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::Groups;

    #[test]
    fn the_manifest_is_read_and_the_first_pattern_decides() {
        let groups = Groups::load().unwrap();
        assert!(groups.least >= 150);
        let group = groups.of("state_table::init::kill_paused");
        assert_eq!(groups.title(group), "Kill");
        assert_eq!(groups.title(groups.of("nowhere::no_test")), "others");
    }
}
