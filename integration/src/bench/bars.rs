//! The bars that our shim and our daemon must clear, and whether they do.
//!
//! The shim of containerd 2.3 is in no Debian release, so where a bar is set against it, its figure
//! is that of the design's table: as it stands, or in proportion to what the installed Go shim
//! does in this very run, which takes the machine's speed and load out.

use super::daemon;
use super::rig::{GO, OURS};
use super::samples::Samples;

/// MB/s of standard output of Go 1.6 and of Go 2.3 when both were measured side by side.
const GO_RATES: (f64, f64) = (555.0, 1073.0);

/// One bar and how we stand to it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is measured.
    pub what: &'static str,
    /// Our figure.
    pub ours: Option<f64>,
    /// That of the Go shim, or of containerd with it, in the same run.
    pub go: Option<f64>,
    /// The bar in words.
    pub bar: String,
    /// Whether it is met; none when it was not measured.
    pub met: Option<bool>,
}

/// How a figure is held against its bar.
#[derive(Clone, Copy, Debug)]
enum Bar {
    /// Our median is at most this.
    AtMost(f64),
    /// Our median is less than this.
    Below(f64),
    /// Our median is at most this share of the other's.
    Share(f64),
    /// Our median is less than the other's.
    Less,
    /// Our median is at least 1.3 times the rate of Go 2.3.
    Rate,
}

/// What, metric, divisor for its unit, bar, and whose figures.
type Row = (&'static str, &'static str, f64, Bar, [&'static str; 2]);

const SHIMS: [&str; 2] = [OURS, GO];
const CORES: [&str; 2] = ["wherryd", "containerd"];
const PAIRS: [&str; 2] = [daemon::OURS, daemon::GO];

use Bar::{AtMost, Below, Less, Rate, Share};

#[rustfmt::skip]
const BARS: &[Row] = &[
    ("added to a whole life, ms", "runc.added", 1.0, AtMost(3.0), SHIMS),
    ("the same, as a share of Go's", "runc.added", 1.0, Share(0.10), SHIMS),
    ("start to address printed, ms", "runc.start-action", 1.0, AtMost(2.5), SHIMS),
    ("Kill, ms", "runc.kill", 1.0, AtMost(0.3), SHIMS),
    ("exec: added to bare runc exec, ms", "runc.exec-added", 1.0, AtMost(2.0), SHIMS),
    ("delete binary, ms", "runc.delete-action", 1.0, AtMost(2.0), SHIMS),
    ("private dirty per idle shim, kB", "private-dirty", 1.0, AtMost(400.0), SHIMS),
    ("resident per idle shim, MB", "resident", 1e3, AtMost(2.5), SHIMS),
    ("threads of an idle shim", "threads", 1.0, AtMost(1.0), SHIMS),
    ("context switches in 10 idle s", "switches", 1.0, AtMost(0.0), SHIMS),
    ("stdout through a FIFO, MB/s", "stdout-rate", 1.0, Rate, SHIMS),
    ("shim CPU s per GB of stdout", "stdout-cpu", 1.0, AtMost(0.30), SHIMS),
    ("growth over the execs, kB", "growth", 1.0, AtMost(64.0), SHIMS),
    ("daemon: resident while idle, MB", "daemon.resident", 1e3, AtMost(10.0), CORES),
    ("daemon: exec to serving, ms", "daemon.boot", 1.0, Below(30.0), CORES),
    ("daemon: ctr run --rm, share of Go's", "daemon.run", 1.0, Share(0.8), PAIRS),
    ("daemon: 50 at once, share of Go's", "daemon.storm-50", 1.0, Share(0.8), PAIRS),
    ("daemon: kB per idle container", "daemon.per-container", 1.0, AtMost(16.0), PAIRS),
    ("images: import, share of Go's", "images.import", 1.0, Share(0.7), CORES),
    ("images: pull, share of Go's", "images.pull", 1.0, Share(0.7), CORES),
    ("images: most resident memory, MB", "images.peak", 1e3, AtMost(40.0), CORES),
    ("images: 1,000, 10,000 snapshots listed", "images.list-both", 1.0, Less, CORES),
    ("images: the call for 1,000 alone", "images.list-raw", 1.0, Less, CORES),
    ("images: that for 10,000 snapshots", "images.list-snapshots-raw", 1.0, Less, CORES),
    ("images: Prepare, share of Go's", "images.prepare", 1.0, Share(1.0), CORES),
];

/// Every bar of the design's table and of the daemon's.
pub fn judge(samples: &Samples) -> Vec<Verdict> {
    BARS.iter().map(|row| stand(row, samples)).collect()
}

fn stand((what, metric, unit, bar, whose): &Row, samples: &Samples) -> Verdict {
    let of = |subject| samples.median(metric, subject).map(|v| v / unit);
    let (ours, go) = (of(whose[0]), of(whose[1]));
    let verdict = |ours: Option<f64>, go, bar: String, met: &dyn Fn(f64) -> bool| Verdict {
        what,
        ours,
        go,
        bar,
        met: ours.map(met),
    };
    let share = |bar: String, met: &dyn Fn(f64) -> bool| {
        // What Go adds may be less than nothing on a busy machine: then there is no share of it.
        let go = go.filter(|go| *go > 0.0);
        let share = ours.zip(go).map(|(ours, go)| ours / go);
        verdict(share, go.map(|_| 1.0), bar, met)
    };
    match *bar {
        AtMost(most) => verdict(ours, go, format!("<= {most}"), &|v| v <= most),
        Below(limit) => verdict(ours, go, format!("< {limit}"), &|v| v < limit),
        Share(most) => share(format!("<= {most}"), &|v| v <= most),
        Less => share("< 1".to_owned(), &|v| v < 1.0),
        Rate => {
            let go_2_3 = go.map_or(GO_RATES.1, |go| go * GO_RATES.1 / GO_RATES.0);
            let least = 1.3 * go_2_3;
            verdict(ours, go, format!(">= {least:.0}"), &|v| v >= least)
        }
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
        samples.push("daemon.boot", CORES[0], 30.0);
        assert_eq!(verdict(&samples, "added to a whole").met, Some(true));
        assert_eq!(verdict(&samples, "the same, as a share").met, Some(false));
        assert_eq!(verdict(&samples, "threads").met, Some(false));
        assert_eq!(verdict(&samples, "exec to serving").met, Some(false));
        assert_eq!(verdict(&samples, "Kill").met, None);
    }

    #[test]
    fn a_share_needs_both() {
        let mut samples = Samples::default();
        samples.push("daemon.run", daemon::OURS, 70.0);
        assert_eq!(verdict(&samples, "ctr run").met, None);
        samples.push("daemon.run", daemon::GO, 100.0);
        assert_eq!(verdict(&samples, "ctr run").ours, Some(0.7));
        assert_eq!(verdict(&samples, "ctr run").met, Some(true));
        samples.push("images.list-both", CORES[0], 100.0);
        samples.push("images.list-both", CORES[1], 100.0);
        assert_eq!(verdict(&samples, "snapshots listed").met, Some(false));
        samples.push("images.prepare", CORES[0], 100.0);
        samples.push("images.prepare", CORES[1], 100.0);
        assert_eq!(verdict(&samples, "Prepare").met, Some(true));
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
