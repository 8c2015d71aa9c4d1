//! The tables for the terminal and the JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::bars::Verdict;
use super::catalogue::{SECTIONS, Section, cell, number};
use super::options::Options;
use super::samples::Samples;
use super::versions;

/// What must be known to read the bar of standard output.
pub const RATE_NOTE: &str = "The bar of stdout is 1.3 times Go 2.3's rate, taken as 1.93 times that of the \
    Go shim installed here, as in the design's table; 1.3 times Go 2.3's own figure there is 1395.";

/// The verdicts, then the median and the 95th percentile of everything.
pub fn table(samples: &Samples, verdicts: &[Verdict]) -> String {
    let mut out = format!(
        "{:<38}{:>9}{:>9}  {:<10}met\n",
        "bar (medians)", "Wherry", "Go", "bar"
    );
    for v in verdicts {
        let (ours, go) = (shown(v.ours), shown(v.go));
        let line = format!("{:<38}{ours:>9}{go:>9}  {:<10}{}\n", v.what, v.bar, met(v));
        out += &line;
    }
    let _ = writeln!(out, "{RATE_NOTE}\n\n{}", load());
    for section in SECTIONS {
        if section.measured(samples).next().is_some() {
            part(&mut out, section, samples);
        }
    }
    out
}

fn part(out: &mut String, section: &Section, samples: &Samples) {
    let _ = write!(out, "\n{:<58}", section.title);
    for (_, heading) in section.subjects {
        let _ = write!(out, "{heading:>20}");
    }
    out.push_str("    ratio\n");
    for row in section.measured(samples) {
        let _ = write!(out, "{:<58}", row.what);
        for (name, _) in section.subjects {
            let _ = write!(out, "{:>20}", cell(row, name, samples));
        }
        let _ = writeln!(out, "{:>9}", shown(section.ratio(row, samples)));
    }
}

/// How a verdict reads.
pub fn met(verdict: &Verdict) -> &'static str {
    match verdict.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "not measured",
    }
}

/// A number, or a dash.
pub fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

/// How busy the machine is, which is what times depend on.
pub fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "Load of the machine at the end: {load}, on {processors} processors. With more load than \
         processors, times are those of waiting for one; Go's beside them tell how much."
    )
}

/// Everything that was measured and what follows from it.
pub fn json(samples: &Samples, verdicts: &[Verdict], options: &Options) -> Value {
    let bars: Vec<Value> = verdicts
        .iter()
        .map(|v| json!({"what": v.what, "ours": v.ours, "go": v.go, "bar": v.bar, "met": v.met}))
        .collect();
    let metrics: serde_json::Map<String, Value> = samples
        .metrics()
        .map(|(metric, by)| {
            let subjects: serde_json::Map<String, Value> = by
                .iter()
                .map(|(subject, values)| {
                    let (median, p95) = (
                        samples.median(metric, subject),
                        samples.p95(metric, subject),
                    );
                    let all = json!({"median": median, "p95": p95, "values": values});
                    (subject.clone(), all)
                })
                .collect();
            (metric.to_owned(), subjects.into())
        })
        .collect();
    json!({
        "date": versions::date(),
        "versions": versions::all(),
        "quick": options.quick,
        "rounds": options.life_rounds(),
        "bars": bars,
        "metrics": metrics,
    })
}
