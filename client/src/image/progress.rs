//! How far the parts of an image are: bars on a terminal, plain lines of news elsewhere, nothing
//! where nothing is wanted. All of it goes to stderr: stdout is for results.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar that nobody moves is drawn.
const TICK: Duration = Duration::from_millis(120);

/// Where news go.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Mode);

#[derive(Debug, Clone)]
enum Mode {
    Bars(MultiProgress),
    Lines,
    Quiet,
}

impl Progress {
    /// As stderr is, unless it is to be quiet.
    pub(crate) fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        Self(if quiet {
            Mode::Quiet
        } else if dumb || !std::io::stderr().is_terminal() {
            Mode::Lines
        } else {
            Mode::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        })
    }

    /// Whether somebody looks, so that it is worth asking how far a long step is.
    pub(crate) fn is_watched(&self) -> bool {
        matches!(self.0, Mode::Bars(_))
    }

    /// A part of the work, of a size in bytes if that is known.
    pub(crate) fn part(
        &self,
        name: impl Into<String>,
        doing: &'static str,
        size: Option<u64>,
    ) -> Part {
        let name = name.into();
        let bar = match &self.0 {
            Mode::Bars(all) => {
                let bar = all.add(match size {
                    Some(size) => ProgressBar::new(size),
                    None => ProgressBar::no_length(),
                });
                bar.set_style(style(size.is_some()));
                bar.set_prefix(name.clone());
                bar.set_message(doing);
                bar.enable_steady_tick(TICK);
                Some(bar)
            }
            Mode::Lines | Mode::Quiet => None,
        };
        Part {
            all: self.clone(),
            name,
            bar,
        }
    }

    /// Tells news that stay on the screen.
    pub(crate) fn tell(&self, text: impl std::fmt::Display) {
        match &self.0 {
            // Above the bars; an error there can be told to nobody.
            Mode::Bars(all) => drop(all.println(text.to_string())),
            Mode::Lines => drop(writeln!(std::io::stderr().lock(), "{text}")),
            Mode::Quiet => {}
        }
    }
}

fn style(sized: bool) -> ProgressStyle {
    let template = if sized {
        "{prefix:12.12} {msg:12} [{bar:30}] {binary_bytes:>10} / {binary_total_bytes:<10} {eta:>4}"
    } else {
        "{prefix:12.12} {msg:12} {spinner} {binary_bytes:>10} {elapsed:>4}"
    };
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// One part. If it is dropped before it is done, it is no longer shown.
#[derive(Debug)]
pub(crate) struct Part {
    all: Progress,
    name: String,
    bar: Option<ProgressBar>,
}

impl Part {
    /// How many bytes are done.
    pub(crate) fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// So many more bytes are done.
    pub(crate) fn more(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Something else is being done, which has no size.
    pub(crate) fn now(&self, doing: &'static str) {
        if let Some(bar) = &self.bar {
            bar.unset_length();
            bar.set_position(0);
            bar.set_style(style(false));
            bar.set_message(doing);
        }
    }

    /// It is done: `what` says how.
    pub(crate) fn done(mut self, what: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.all.tell(format_args!("{}: {what}", self.name));
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Bytes as people say them.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // In tenths of a unit, rounded down.
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let told = [0, 1023, 1024, 1536, 1 << 20, 5_000_000_000].map(bytes);
        assert_eq!(
            told,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "4.6 GiB"]
        );
        assert!(bytes(u64::MAX).ends_with(" PiB"));
    }

    #[test]
    fn the_templates_can_be_read() {
        for sized in [true, false] {
            style(sized);
        }
        let part = Progress(Mode::Quiet).part("x", "y", Some(1));
        part.more(1);
        part.now("z");
        part.at(3);
        part.done("done");
    }
}
