//! `differences.toml`: what other shims are known to do otherwise, and why.

use serde::Deserialize;

use super::groups::read;
use super::pattern;

/// All known differences.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    difference: Vec<Difference>,
}

/// One check, or several by a pattern, that a shim does not pass for a known reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// `file::test`, with `*` for any text.
    pub test: String,
    /// The kinds of shims, as [`super::subject::Subject::kind`] names them.
    pub shims: Vec<String>,
    /// Only with these runtimes; with any when empty.
    #[serde(default)]
    pub runtimes: Vec<String>,
    /// What the shim does instead, and why.
    pub reason: String,
    /// Where that is told: `containerd#N`, a manual page, the part of the contract that a shim breaks
    /// (`contract: Kill`), or `decided` where the shim may do so and ours was made to do otherwise.
    pub issue: String,
    /// It is a race, or depends on the machine: passing is no news.
    #[serde(default)]
    pub sometimes: bool,
}

impl Differences {
    /// Reads the list of the tree.
    ///
    /// # Errors
    /// What is wrong with the file, with its path.
    pub fn load() -> Result<Self, String> {
        read("differences.toml")
    }

    /// The entry for a check on a kind of shim, if there is one.
    pub fn find(&self, test: &str, kind: &str, runtime: &str) -> Option<&Difference> {
        self.of(kind, runtime)
            .find(|d| pattern::matches(&d.test, test))
    }

    /// The entries that no check needed: each of its checks passed, or there is none.
    pub fn stale(
        &self,
        kind: &str,
        runtime: &str,
        tests: &[&str],
        differs: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        self.of(kind, runtime)
            .filter(|d| !d.sometimes)
            .filter(|d| {
                !tests
                    .iter()
                    .any(|t| pattern::matches(&d.test, t) && differs(t))
            })
            .map(|d| d.test.clone())
            .collect()
    }

    fn of<'a>(&'a self, kind: &str, runtime: &str) -> impl Iterator<Item = &'a Difference> {
        self.difference.iter().filter(move |d| {
            d.shims.iter().any(|s| s == kind)
                && (d.runtimes.is_empty() || d.runtimes.iter().any(|r| r == runtime))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::groups::Groups;
    use super::super::pattern;
    use super::Differences;

    fn list() -> Differences {
        toml::from_str(
            r#"
            [[difference]]
            test = "a::*"
            shims = ["go-v2"]
            reason = "old"
            issue = "containerd#1"
            [[difference]]
            test = "b::two"
            shims = ["go-v2"]
            runtimes = ["crun"]
            reason = "crun's"
            issue = "decided"
            [[difference]]
            test = "c::race"
            shims = ["go-v2"]
            reason = "a race"
            issue = "decided"
            sometimes = true
            "#,
        )
        .unwrap()
    }

    #[test]
    fn an_entry_counts_for_its_shim_and_runtime() {
        let list = list();
        assert!(list.find("a::one", "go-v2", "runc").is_some());
        assert!(list.find("a::one", "wherry-v2", "runc").is_none());
        assert!(list.find("b::two", "go-v2", "runc").is_none());
        assert!(list.find("b::two", "go-v2", "crun").is_some());
    }

    #[test]
    fn an_entry_whose_checks_all_passed_is_stale() {
        let list = list();
        let tests = ["a::one", "a::two", "b::two", "c::race"];
        let stale = |differs: &dyn Fn(&str) -> bool| list.stale("go-v2", "runc", &tests, differs);
        assert_eq!(stale(&|_| false), ["a::*"]);
        assert!(stale(&|t| t == "a::two").is_empty());
    }

    #[test]
    fn every_pattern_is_about_a_check_that_exists() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let groups = Groups::load().unwrap();
        let list = Differences::load().unwrap();
        let all = list.difference.iter().map(|d| d.test.as_str());
        for wanted in all.chain(groups.patterns()) {
            let (file, test) = wanted.split_once("::").unwrap_or((wanted, "*"));
            // Macros join the parts of a name; the last is written out.
            let name = test.rsplit("::").next().unwrap_or_default();
            let found = std::fs::read_dir(&tests).unwrap().flatten().any(|entry| {
                let path = entry.path();
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                pattern::matches(file, &stem) && name.split('*').all(|part| text.contains(part))
            });
            assert!(found, "no test is called {wanted}");
        }
    }

    #[test]
    fn none_is_known_of_ours() {
        let list = Differences::load().unwrap();
        for kind in ["wherry-v1", "wherry-v2"] {
            assert_eq!(list.of(kind, "runc").count(), 0);
        }
    }
}
