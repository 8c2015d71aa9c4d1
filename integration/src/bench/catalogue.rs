//! What every metric means, in words and units, and in which table it stands beside whom.

use super::daemon;
use super::rig::{BARE, GO, GO_V1, OURS};
use super::samples::Samples;

/// One table.
#[derive(Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// The subjects with their headings: ours first, then what it is measured against.
    pub subjects: &'static [(&'static str, &'static str)],
    /// The rows.
    pub rows: &'static [Row],
}

/// One row.
#[derive(Debug)]
pub struct Row {
    /// The metric.
    pub metric: &'static str,
    /// What it is, with its unit.
    pub what: &'static str,
    /// By what values are divided for that unit.
    pub unit: f64,
    /// Whether more of it is better: its bad end is then the lower one.
    pub rate: bool,
}

impl Section {
    /// The rows of which something was measured.
    pub fn measured<'a>(&'a self, samples: &'a Samples) -> impl Iterator<Item = &'a Row> {
        let any = |row: &Row| {
            let mut subjects = self.subjects.iter();
            subjects.any(|(name, _)| samples.median(row.metric, name).is_some())
        };
        self.rows.iter().filter(move |row| any(row))
    }

    /// Our median as a share of that of the second subject; none where there is nothing to share.
    pub fn ratio(&self, row: &Row, samples: &Samples) -> Option<f64> {
        let of = |at: usize| samples.median(row.metric, self.subjects.get(at)?.0);
        let (ours, other) = (of(0)?, of(1)?);
        (other > 0.0 && ours >= 0.0).then(|| ours / other)
    }
}

const fn row(metric: &'static str, what: &'static str) -> Row {
    Row {
        metric,
        what,
        unit: 1.0,
        rate: false,
    }
}

const fn in_mega(metric: &'static str, what: &'static str) -> Row {
    Row {
        metric,
        what,
        unit: 1e3,
        rate: false,
    }
}

const fn rate(metric: &'static str, what: &'static str) -> Row {
    Row {
        metric,
        what,
        unit: 1.0,
        rate: true,
    }
}

const SHIMS: &[(&str, &str)] = &[(OURS, "Wherry"), (GO, "Go v2"), (GO_V1, "Go v1")];
const SHIMS_AND_BARE: &[(&str, &str)] = &[
    (OURS, "Wherry"),
    (GO, "Go v2"),
    (GO_V1, "Go v1"),
    (BARE, "no shim"),
];

/// All tables, in the order of printing.
pub const SECTIONS: &[Section] = &[
    Section {
        title: "One container's life, by runc",
        subjects: SHIMS_AND_BARE,
        rows: &[
            row(
                "runc.added",
                "added to the whole life, by medians of its steps, ms",
            ),
            row("runc.life", "the whole life, ms"),
            row("runc.life-added", "added to it, life by life, ms"),
            row(
                "runc.start-action",
                "start action, to the address printed, ms",
            ),
            row("runc.create", "Create, ms"),
            row("runc.start", "Start, ms"),
            row("runc.exec", "an exec to its end, ms"),
            row("runc.kill", "Kill, ms"),
            row("runc.gone", "until the end is told, ms"),
            row("runc.delete", "Delete, ms"),
            row("runc.delete-action", "delete action, ms"),
            row("runc.exec-added", "added to `runc exec`, in pairs, ms"),
        ],
    },
    Section {
        title: "One container's life, by crun",
        subjects: SHIMS_AND_BARE,
        rows: &[
            row(
                "crun.added",
                "added to the whole life, by medians of its steps, ms",
            ),
            row("crun.life", "the whole life, ms"),
            row("crun.life-added", "added to it, life by life, ms"),
            row(
                "crun.start-action",
                "start action, to the address printed, ms",
            ),
            row("crun.create", "Create, ms"),
            row("crun.start", "Start, ms"),
            row("crun.exec", "an exec to its end, ms"),
            row("crun.kill", "Kill, ms"),
            row("crun.gone", "until the end is told, ms"),
            row("crun.delete", "Delete, ms"),
            row("crun.delete-action", "delete action, ms"),
            row("crun.exec-added", "added to `crun exec`, in pairs, ms"),
        ],
    },
    Section {
        title: "Many at once",
        subjects: SHIMS_AND_BARE,
        rows: &[
            row(
                "runc.storm-1",
                "1 container, from nothing to running, by runc, ms",
            ),
            row("runc.storm-10", "10 at once, ms"),
            row("runc.storm-50", "50 at once, ms"),
            row(
                "crun.storm-1",
                "1 container, from nothing to running, by crun, ms",
            ),
            row("crun.storm-10", "10 at once, ms"),
            row("crun.storm-50", "50 at once, ms"),
            rate(
                "state-rate",
                "State calls per second while a Create is under way",
            ),
            row("state-wait", "the longest of them in each Create, ms"),
        ],
    },
    Section {
        title: "An idle shim (ten of each alive)",
        subjects: SHIMS,
        rows: &[
            row("private-dirty", "private dirty memory, kB"),
            in_mega("resident", "resident memory, MB"),
            row("threads", "threads"),
            row("switches", "context switches in 10 s"),
        ],
    },
    Section {
        title: "Each of many idle containers",
        subjects: SHIMS,
        rows: &[
            row(
                "scale.pss-1",
                "memory of the shim, shared pages by share, of 1, kB",
            ),
            row("scale.pss-10", "of 10, kB"),
            row("scale.pss-50", "of 50, kB"),
            row("scale.pss-100", "of 100, kB"),
            row("scale.pss-500", "of 500, kB"),
            row(
                "scale.private-1",
                "private dirty memory of the shim, of 1, kB",
            ),
            row("scale.private-10", "of 10, kB"),
            row("scale.private-50", "of 50, kB"),
            row("scale.private-100", "of 100, kB"),
            row("scale.private-500", "of 500, kB"),
            row("scale.threads-1", "threads, of 1"),
            row("scale.threads-10", "of 10"),
            row("scale.threads-50", "of 50"),
            row("scale.threads-100", "of 100"),
            row("scale.threads-500", "of 500"),
            row("scale.switches-1", "context switches in 5 s, of 1"),
            row("scale.switches-10", "of 10"),
            row("scale.switches-50", "of 50"),
            row("scale.switches-100", "of 100"),
            row("scale.switches-500", "of 500"),
        ],
    },
    Section {
        title: "Output and long lives",
        subjects: SHIMS,
        rows: &[
            rate("stdout-rate", "standard output through a FIFO, MB/s"),
            row("stdout-cpu", "processor seconds of the shim per GB of it"),
            row("growth", "private memory gained over the execs, kB"),
            row("growth-warm", "of that after the first hundred, kB"),
            row("growth-execs", "execs"),
        ],
    },
    Section {
        title: "The core daemon, idle",
        subjects: &[("wherryd", "wherryd"), ("containerd", "containerd")],
        rows: &[
            row("daemon.boot", "from exec to the first answer, ms"),
            in_mega("daemon.resident", "resident memory, MB"),
            in_mega("daemon.private", "private dirty memory, MB"),
            row("daemon.threads", "threads"),
            row("daemon.switches", "context switches in 10 s"),
        ],
    },
    Section {
        title: "Images on the core daemon",
        subjects: &[("wherryd", "wherryd"), ("containerd", "containerd")],
        rows: &[
            row(
                "images.import",
                "`ctr images import` of 10 layers, 300 MB, ms",
            ),
            row(
                "images.import-cpu",
                "processor time of the daemon for it, ms",
            ),
            row("images.pull", "`ctr images pull` of the same, ms"),
            row("images.pull-cpu", "processor time of the daemon for it, ms"),
            in_mega(
                "images.peak",
                "the most resident memory of any of the daemons, MB",
            ),
            row("images.list", "`ctr images ls -q` of 1,000, ms"),
            row("images.list-raw", "the call alone, ms"),
            row("images.list-snapshots", "`ctr snapshots ls` of 10,000, ms"),
            row("images.list-snapshots-raw", "the call alone, ms"),
            row("images.list-both", "both lists by `ctr`, ms"),
            row("images.prepare", "Prepare of a snapshot on another, ms"),
            row("images.remove", "Remove of it, ms"),
        ],
    },
    Section {
        title: "Each daemon with each kind of shims",
        subjects: &[
            (daemon::OURS, "wherryd, Wherry"),
            (daemon::GO, "containerd, Go v2"),
            ("wherryd+go", "wherryd, Go v2"),
            ("containerd+ours", "containerd, Wherry"),
        ],
        rows: &[
            row("daemon.run", "`ctr run --rm --rootfs` of `true`, ms"),
            row(
                "daemon.storm-50",
                "50 `ctr run -d` at once, until all run, ms",
            ),
            row(
                "daemon.per-container",
                "private memory of the daemon per idle container, kB",
            ),
            row(
                "daemon.herd-threads",
                "threads of the daemon with the idle containers",
            ),
            row(
                "daemon.herd-switches",
                "context switches of that daemon in 5 s",
            ),
        ],
    },
];

/// The metrics that no table has: those that somebody forgot to describe here.
pub fn unknown(samples: &Samples) -> Vec<&str> {
    let known = |metric: &str| {
        let mut rows = SECTIONS.iter().flat_map(|section| section.rows);
        rows.any(|row| row.metric == metric)
    };
    let names = samples.metrics().map(|(metric, _)| metric);
    names.filter(|metric| !known(metric)).collect()
}

/// A number as tables show it.
pub fn number(value: f64) -> String {
    match value {
        v if v.abs() >= 100.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v if v.abs() >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Median of one cell and what 95 of a hundred values are not worse than, as tables show them.
pub fn cell(row: &Row, subject: &str, samples: &Samples) -> String {
    let values = samples.values(row.metric, subject).len();
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| number(v / row.unit));
    let median = show(samples.median(row.metric, subject));
    let bad = if row.rate {
        samples.p5(row.metric, subject)
    } else {
        samples.p95(row.metric, subject)
    };
    match values {
        0 | 1 => median,
        _ => format!("{median} / {}", show(bad)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_metric_stands_in_two_rows() {
        let mut names: Vec<&str> = SECTIONS
            .iter()
            .flat_map(|s| s.rows.iter().map(|r| r.metric))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_row_has_its_cells_and_its_ratio() {
        let section = &SECTIONS[0];
        let row = &section.rows[1];
        let mut samples = Samples::default();
        assert_eq!(section.measured(&samples).count(), 0);
        samples.push(row.metric, OURS, 12.0);
        samples.push(row.metric, GO, 24.5);
        samples.push(row.metric, GO, 23.5);
        assert_eq!(section.measured(&samples).count(), 1);
        assert_eq!(section.ratio(row, &samples), Some(0.5));
        assert_eq!(cell(row, OURS, &samples), "12");
        assert_eq!(cell(row, GO, &samples), "24 / 24");
        assert_eq!(cell(row, BARE, &samples), "-");
    }
}
