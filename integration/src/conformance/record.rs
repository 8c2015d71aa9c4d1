//! `docs/conformance.md`: the results of several runs on one page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::results::{Results, Verdict};

/// What the page says of itself, before the tables.
const HEAD: &str = "\
# Conformance

What the suite of `integration/` finds on each shim: every promise of a containerd runtime-v2 shim is
a check, grouped by the call it is made for. `make conformance SHIM=FILE` runs it on any shim,
`make compare` on several side by side; this page is written by the program (`--record`). What is
known to be otherwise stands in `integration/differences.toml`; it is listed below with its reason.
";

/// The page, in Markdown.
pub fn page(results: &Results) -> String {
    let mut text = HEAD.to_owned();
    text.push_str(
        "\n## Shims\n\n| | version | runtime | machine | checks |\n|---|---|---|---|---|\n",
    );
    let names = names(results);
    for (shim, name) in results.shims.iter().zip(&names) {
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} |",
            shim.version,
            shim.runtime,
            shim.machine,
            shim.totals().split_once(": ").map_or("", |(_, t)| t),
        );
    }
    text.push_str(
        "\n## By call\n\nPassed checks of those that apply; the others differ as listed.\n\n",
    );
    let _ = writeln!(text, "| | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(names.len()));
    for title in results.titles() {
        let cells: Vec<String> = results
            .shims
            .iter()
            .map(|shim| {
                let group = shim.groups.iter().find(|g| g.group == title);
                group.map_or_else(
                    || "–".to_owned(),
                    |g| {
                        let apply = g.checks.len() - g.count(Verdict::NotApplicable);
                        match g.count(Verdict::Fail) {
                            0 => format!("{}/{apply}", g.count(Verdict::Pass)),
                            n => format!("{}/{apply}, **{n} fail**", g.count(Verdict::Pass)),
                        }
                    },
                )
            })
            .collect();
        let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
    }
    text.push_str(&reasons(results, &names, Verdict::Differs, "Differences"));
    text.push_str(&reasons(
        results,
        &names,
        Verdict::NotApplicable,
        "Not applicable",
    ));
    text.push_str(&reasons(results, &names, Verdict::Fail, "Failures"));
    text
}

/// What the columns are called: by kind, and by the runtime where that is another than runc.
fn names(results: &Results) -> Vec<String> {
    let name = |shim: &super::results::Shim| match shim.runtime.as_str() {
        "runc" => shim.kind.clone(),
        other => format!("{} on {other}", shim.kind),
    };
    results.shims.iter().map(name).collect()
}

/// One row for each reason: the shims it holds for, and their checks.
fn reasons(results: &Results, names: &[String], verdict: Verdict, title: &str) -> String {
    let mut rows: BTreeMap<(BTreeSet<String>, String), BTreeSet<&str>> = BTreeMap::new();
    let mut shims: BTreeMap<String, BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
    for (shim, name) in results.shims.iter().zip(names) {
        for check in shim.checks().filter(|c| c.result == verdict) {
            let told = check.told().unwrap_or_default();
            let of = shims.entry(told).or_default();
            of.entry(&check.test).or_default().insert(name.clone());
        }
    }
    // Checks of one reason that hold for the same shims share a row.
    for (told, checks) in shims {
        for (test, who) in checks {
            rows.entry((who, told.clone())).or_default().insert(test);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!("\n## {title}\n\n| shims | what and why | checks |\n|---|---|---|\n");
    for ((who, told), tests) in rows {
        let who = who.into_iter().collect::<Vec<_>>().join(", ");
        let tests = tests.into_iter().map(|t| format!("`{t}`"));
        let tests = tests.collect::<Vec<_>>().join("<br>");
        let _ = writeln!(text, "| {who} | {} | {tests} |", told.replace('|', "\\|"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::results::{Check, Group, Results, Shim, Verdict};
    use super::page;

    fn shim(kind: &str, runtime: &str, result: Verdict) -> Shim {
        let check = |test: &str, result| Check {
            test: test.to_owned(),
            result,
            reason: (result == Verdict::Differs).then(|| "old".to_owned()),
            issue: (result == Verdict::Differs).then(|| "containerd#1".to_owned()),
            seen: None,
            seconds: 0.1,
        };
        Shim {
            kind: kind.to_owned(),
            path: "/x".into(),
            version: "1".to_owned(),
            runtime: runtime.to_owned(),
            machine: "Linux".to_owned(),
            stale: Vec::new(),
            groups: vec![Group {
                group: "Kill".to_owned(),
                checks: vec![check("a::one", result), check("a::two", Verdict::Pass)],
            }],
        }
    }

    #[test]
    fn shims_with_one_reason_share_a_row() {
        let shims = vec![
            shim("wherry-v2", "crun", Verdict::Pass),
            shim("go-v1", "runc", Verdict::Differs),
            shim("go-v2", "runc", Verdict::Differs),
        ];
        let page = page(&Results { shims });
        assert!(
            page.contains("| | wherry-v2 on crun | go-v1 | go-v2 |"),
            "{page}"
        );
        assert!(page.contains("| Kill | 2/2 | 1/2 | 1/2 |"), "{page}");
        assert!(
            page.contains("| go-v1, go-v2 | old [containerd#1] | `a::one` |"),
            "{page}"
        );
        assert!(!page.contains("Failures"), "{page}");
    }
}
