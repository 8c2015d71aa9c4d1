//! The tables for people and the JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::bars::Verdict;
use super::options::Options;
use super::rig::{BARE, Subject};
use super::samples::Samples;

/// The verdicts, then the median and the 95th percentile of everything.
pub fn table(samples: &Samples, verdicts: &[Verdict], subjects: &[Subject]) -> String {
    let mut out = format!(
        "{:<36}{:>9}{:>9}  {:<10}met\n",
        "bar (medians)", "ours", "go-v2", "bar"
    );
    for v in verdicts {
        let met = match v.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "not measured",
        };
        let (ours, go) = (number(v.ours), number(v.go));
        let line = format!("{:<36}{ours:>9}{go:>9}  {:<10}{met}\n", v.what, v.bar);
        out += &line;
    }
    out += "The bar of stdout is 1.3 times Go 2.3's rate, taken as 1.93 times that of the Go shim \
            installed here,\nas in the design's table; 1.3 times Go 2.3's own figure there is 1395.\n\n";
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let _ = writeln!(
        out,
        "Load of the machine at the end: {load}, on {processors} processors. With more load than \
         processors, times\nare those of waiting for one; Go's beside them tell how much.\n"
    );
    let _ = write!(out, "{:<22}", "median / p95");
    let mut names: Vec<&str> = subjects.iter().map(|s| s.name).collect();
    names.push(BARE);
    for name in &names {
        let _ = write!(out, "{name:>20}");
    }
    out.push('\n');
    for (metric, _) in samples.metrics() {
        let _ = write!(out, "{metric:<22}");
        for name in &names {
            let (median, p95) = (samples.median(metric, name), samples.p95(metric, name));
            let cell = match median {
                Some(_) => format!("{} / {}", number(median), number(p95)),
                None => "-".to_owned(),
            };
            let _ = write!(out, "{cell:>20}");
        }
        out.push('\n');
    }
    out
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(v) if v.abs() >= 100.0 || v.fract() == 0.0 => format!("{v:.0}"),
        Some(v) => format!("{v:.2}"),
    }
}

/// Everything that was measured and what follows from it.
pub fn json(samples: &Samples, verdicts: &[Verdict], options: &Options) -> Value {
    let bars: Vec<Value> = verdicts
        .iter()
        .map(|v| json!({"what": v.what, "ours": v.ours, "go": v.go, "bar": v.bar, "met": v.met}))
        .collect();
    let samples: Value = samples
        .metrics()
        .map(|(metric, by)| (metric.to_owned(), json!(by)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({"quick": options.quick, "rounds": options.rounds, "bars": bars, "samples": samples})
}
