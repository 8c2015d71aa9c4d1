//! The bars that our shim must clear, and whether it does.
//!
//! The shim of containerd 2.3 is in no Debian release, so where a bar is set against it, its figure
//! is that of the design's table: as it stands, or in proportion to what the installed Go shim
//! does in this very run, which takes the machine's speed and load out.

use super::rig::{GO, OURS};
use super::samples::Samples;

/// MB/s of standard output of Go 1.6 and of Go 2.3 when both were measured side by side.
const GO_RATES: (f64, f64) = (555.0, 1073.0);

/// One bar.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is measured.
    pub what: &'static str,
    /// Our figure.
    pub ours: Option<f64>,
    /// Go's in the same run.
    pub go: Option<f64>,
    /// The bar in words.
    pub bar: String,
    /// Whether it is met; none when it was not measured.
    pub met: Option<bool>,
}

/// Upper bounds: what, metric, divisor for its unit, bar.
const AT_MOST: &[(&str, &str, f64, f64)] = &[
    ("added to a whole life, ms", "runc.added", 1.0, 3.0),
    (
        "start to address printed, ms",
        "runc.start-action",
        1.0,
        2.5,
    ),
    ("Kill, ms", "runc.kill", 1.0, 0.3),
    (
        "exec: added to bare runc exec, ms",
        "runc.exec-added",
        1.0,
        2.0,
    ),
    ("delete binary, ms", "runc.delete-action", 1.0, 2.0),
    (
        "private dirty per idle shim, kB",
        "private-dirty",
        1.0,
        400.0,
    ),
    ("resident per idle shim, MB", "resident", 1e3, 2.5),
    ("threads of an idle shim", "threads", 1.0, 1.0),
    ("context switches in 10 idle s", "switches", 1.0, 0.0),
    ("shim CPU s per GB of stdout", "stdout-cpu", 1.0, 0.30),
    ("growth over the execs, kB", "growth", 1.0, 64.0),
];

/// Every bar of the design's table, in about its order.
pub fn judge(samples: &Samples) -> Vec<Verdict> {
    let mut list: Vec<Verdict> = AT_MOST
        .iter()
        .map(|(what, metric, unit, most)| {
            let ours = samples.median(metric, OURS).map(|v| v / unit);
            Verdict {
                what,
                ours,
                go: samples.median(metric, GO).map(|v| v / unit),
                bar: format!("<= {most}"),
                met: ours.map(|v| v <= *most),
            }
        })
        .collect();
    list.insert(1, share_of_go(samples));
    list.insert(10, rate(samples));
    list
}

/// What we add, as a share of what Go adds.
fn share_of_go(samples: &Samples) -> Verdict {
    let go = samples.median("runc.added", GO);
    let ours = samples.median("runc.added", OURS).zip(go);
    let share = ours.map(|(ours, go)| ours / go);
    Verdict {
        what: "the same, as a share of Go's",
        ours: share,
        go: go.map(|_| 1.0),
        bar: "<= 0.1".to_owned(),
        met: share.map(|v| v <= 0.10),
    }
}

/// 1.3 times Go 2.3's rate.
fn rate(samples: &Samples) -> Verdict {
    let ours = samples.median("stdout-rate", OURS);
    let go = samples.median("stdout-rate", GO);
    let bar = go.map(|go| 1.3 * go * GO_RATES.1 / GO_RATES.0);
    Verdict {
        what: "stdout through a FIFO, MB/s",
        ours,
        go,
        bar: format!(">= {:.0}", bar.unwrap_or(1.3 * GO_RATES.1)),
        met: ours.map(|v| v >= bar.unwrap_or(1.3 * GO_RATES.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(samples: &Samples, what: &str) -> Verdict {
        let list = judge(samples);
        list.into_iter().find(|v| v.what.contains(what)).unwrap()
    }

    #[test]
    fn a_bar_is_met_missed_or_not_measured() {
        let mut samples = Samples::default();
        samples.push("runc.added", OURS, 2.9);
        samples.push("runc.added", GO, 28.0);
        samples.push("threads", OURS, 2.0);
        assert_eq!(verdict(&samples, "added to a whole").met, Some(true));
        assert_eq!(verdict(&samples, "share of Go").met, Some(false));
        assert_eq!(verdict(&samples, "threads").met, Some(false));
        assert_eq!(verdict(&samples, "Kill").met, None);
    }

    #[test]
    fn the_rate_is_in_proportion_to_the_go_shim_of_the_run() {
        let mut samples = Samples::default();
        samples.push("stdout-rate", OURS, 1_300.0);
        assert_eq!(verdict(&samples, "stdout through").met, Some(false));
        samples.push("stdout-rate", GO, 500.0);
        assert_eq!(verdict(&samples, "stdout through").met, Some(true));
        assert_eq!(verdict(&samples, "stdout through").bar, ">= 1257");
    }
}
