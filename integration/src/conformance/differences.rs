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
    /// Where that is told: `containerd#N` or a section of the contract.
    pub issue: Option<String>,
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
    use super::Differences;

    fn list() -> Differences {
        toml::from_str(
            r#"
            [[difference]]
            test = "a::*"
            shims = ["go-v2"]
            reason = "old"
            [[difference]]
            test = "b::two"
            shims = ["go-v2"]
            runtimes = ["crun"]
            reason = "crun's"
            [[difference]]
            test = "c::race"
            shims = ["go-v2"]
            reason = "a race"
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
    fn none_is_known_of_ours() {
        let list = Differences::load().unwrap();
        for kind in ["wherry-v1", "wherry-v2"] {
            assert_eq!(list.of(kind, "runc").count(), 0);
        }
    }
}
