//! The page `docs/bench/README.md`, its charts, and the block of figures in the project's README.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use super::bars::Verdict;
use super::catalogue::{SECTIONS, cell};
use super::options::Options;
use super::report::{RATE_NOTE, load, met, shown};
use super::samples::Samples;
use super::{charts, versions};

/// Between these two lines the README's figures are written anew.
const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";

/// The rows of the README's table: bars by what they are called there, in the reader's words.
const FIGURES: &[(&str, &str)] = &[
    (
        "private dirty per idle shim, kB",
        "private memory of an idle shim, kB",
    ),
    (
        "resident per idle shim, MB",
        "resident memory of an idle shim, MB",
    ),
    ("threads of an idle shim", "threads of an idle shim"),
    (
        "context switches in 10 idle s",
        "wake-ups of an idle shim in 10 s",
    ),
    (
        "added to a whole life, ms",
        "added to a container's whole life, over bare runc, ms",
    ),
    (
        "start to address printed, ms",
        "`start` until the address is printed, ms",
    ),
    ("Kill, ms", "Kill, ms"),
    ("stdout through a FIFO, MB/s", "output through a FIFO, MB/s"),
    (
        "shim CPU s per GB of stdout",
        "processor seconds per GB of output",
    ),
    (
        "daemon: resident while idle, MB",
        "resident memory of the idle daemon, MB",
    ),
    (
        "daemon: exec to serving, ms",
        "daemon, from exec to serving, ms",
    ),
    (
        "daemon: ctr run --rm, share of Go's",
        "`ctr run --rm`, daemon and shim, share of Go's",
    ),
    (
        "daemon: 50 at once, share of Go's",
        "50 `ctr run` at once, share of Go's",
    ),
    (
        "images: import, share of Go's",
        "`ctr images import` of 300 MB in 10 layers, share of containerd's",
    ),
    (
        "images: pull, share of Go's",
        "`ctr images pull` of the same, share of containerd's",
    ),
    (
        "images: most resident memory, MB",
        "the most memory of the daemon meanwhile, MB",
    ),
];

/// Writes the page and the charts into the folder, and the figures into the file, that the options
/// name; nothing when they name no folder.
///
/// # Errors
/// The path that could not be read or written.
pub fn write(options: &Options, samples: &Samples, verdicts: &[Verdict]) -> Result<(), String> {
    let Some(docs) = options.docs.as_deref() else {
        return Ok(());
    };
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let put = |path: &Path, text: &str| fs::write(path, text).map_err(|e| told(path, e));
    fs::create_dir_all(docs).map_err(|e| told(docs, e))?;
    for (name, chart) in [
        ("memory.svg", charts::memory(samples)),
        ("life.svg", charts::life(samples)),
    ] {
        if let Some(chart) = chart {
            put(&docs.join(name), &chart)?;
        }
    }
    put(&docs.join("README.md"), &page(options, samples, verdicts))?;
    if let Some(readme) = options.readme.as_deref() {
        let old = fs::read_to_string(readme).map_err(|e| told(readme, e))?;
        let new = replaced(&old, &figures(verdicts)).ok_or_else(|| {
            format!(
                "{}: the lines {BEGIN} and {END} are not there",
                readme.display()
            )
        })?;
        put(readme, &new)?;
    }
    Ok(())
}

/// When and with what this was measured.
fn when() -> String {
    let versions: Vec<String> = versions::all()
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    format!(
        "Measured on {} with {}.",
        versions::date(),
        versions.join(", ")
    )
}

fn page(options: &Options, samples: &Samples, verdicts: &[Verdict]) -> String {
    let short = if options.quick {
        " It was a short run, with fewer rounds and containers."
    } else {
        ""
    };
    let mut out = format!(
        "# The benchmark\n\n`make bench` writes this page; `make bars` measures likewise and fails unless every \
         bar is met. {}{short} {}\n\nEverything is from one run, ours and Go's in turn, round by round. Cells are \
         median / 95th percentile (of a rate the 5th, its bad end); *ratio* is our median as a share of that in the next column. \
         [ADR 0005](../adr/0005-memory-and-latency.md) says how the shims are measured, \
         [ADR 0006](../adr/0006-release-build-of-the-daemon.md) how the daemon is built. Where daemons run \
         containers, what is below /run on a node is in memory here as well \
         ([ADR 0016](../adr/0016-starting-a-shim.md)).\n\n\
         ![Memory per container](memory.svg)\n\n![One container's life](life.svg)\n",
        when(),
        load()
    );
    out += "\n## The bars\n\n| what (medians) | Wherry | Go | bar | met |\n|---|--:|--:|---|---|\n";
    for v in verdicts {
        let (ours, go) = (shown(v.ours), shown(v.go));
        let _ = writeln!(
            out,
            "| {} | {ours} | {go} | {} | {} |",
            v.what,
            v.bar,
            met(v)
        );
    }
    let _ = writeln!(
        out,
        "\n{RATE_NOTE} containerd runs without its CRI plugin, which wherryd does not have. The image has \
         10 layers of 30 MB of files, packed by gzip to about half; it is imported and pulled into empty \
         daemons, both on one fresh ext4 per round. wherryd has a layer on disk when it says that it is \
         there, containerd leaves that to the kernel. Lists are of daemons whose folders are in memory."
    );
    for section in SECTIONS {
        if section.measured(samples).next().is_none() {
            continue;
        }
        let _ = write!(out, "\n## {}\n\n| |", section.title);
        for (_, heading) in section.subjects {
            let _ = write!(out, " {heading} |");
        }
        let _ = writeln!(
            out,
            " ratio |\n|---|{}",
            "--:|".repeat(section.subjects.len() + 1)
        );
        for row in section.measured(samples) {
            let _ = write!(out, "| {} |", row.what);
            for (name, _) in section.subjects {
                let _ = write!(out, " {} |", cell(row, name, samples));
            }
            let _ = writeln!(out, " {} |", shown(section.ratio(row, samples)));
        }
    }
    out
}

/// The block of the README.
fn figures(verdicts: &[Verdict]) -> String {
    let mut out = format!(
        "{} Medians of one run.\n\n| | Go | Wherry |\n|---|--:|--:|\n",
        when()
    );
    for (bar, what) in FIGURES {
        let found = verdicts.iter().find(|v| v.what == *bar);
        if let Some(Verdict { ours, go, .. }) = found.filter(|v| v.ours.is_some()) {
            let _ = writeln!(out, "| {what} | {} | {} |", shown(*go), shown(*ours));
        }
    }
    out
}

/// `text` with what stands between the two marks replaced; none when they are not there.
fn replaced(text: &str, block: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{block}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::super::bars;
    use super::*;

    #[test]
    fn only_the_block_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert!(replaced("no marks", "new").is_none());
    }

    #[test]
    fn every_figure_of_the_readme_is_a_bar() {
        let bars = bars::judge(&Samples::default());
        for (bar, _) in FIGURES {
            assert!(bars.iter().any(|v| v.what == *bar), "{bar}");
        }
    }
}
