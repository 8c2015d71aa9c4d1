//! The table on the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::results::{Check, Results};

/// One line for each check with a word for each shim, reasons below what is no pass.
pub fn table(results: &Results) -> String {
    let shims = &results.shims;
    let mut text = String::new();
    let heads: String = shims.iter().map(|s| format!("{:<10}", s.kind)).collect();
    for title in results.titles() {
        let _ = writeln!(text, "\n{heads}== {title}");
        let mut rows: BTreeMap<&str, Vec<Option<&Check>>> = BTreeMap::new();
        for (at, shim) in shims.iter().enumerate() {
            let group = shim.groups.iter().filter(|g| g.group == title);
            for check in group.flat_map(|g| &g.checks) {
                let row = rows.entry(&check.test);
                row.or_insert_with(|| vec![None; shims.len()])[at] = Some(check);
            }
        }
        for cells in rows.values() {
            let words = cells.iter().map(|c| c.map_or("-", |c| c.result.word()));
            let words: String = words.map(|word| format!("{word:<10}")).collect();
            let name = cells.iter().flatten().next().map(|c| c.sentence());
            let _ = writeln!(text, "{words}{}", name.unwrap_or_default());
            for (shim, check) in shims.iter().zip(cells) {
                if let Some(reason) = check.and_then(Check::told) {
                    let indent = " ".repeat(shims.len() * 10 + 2);
                    let _ = writeln!(text, "{indent}{}: {reason}", shim.kind);
                }
            }
        }
    }
    text.push('\n');
    for shim in shims {
        let _ = writeln!(text, "{:<10}{}", shim.kind, shim.totals());
        for test in &shim.stale {
            let _ = writeln!(
                text,
                "          stale: differences.toml lists {test}, which passed or is no check"
            );
        }
    }
    text
}
