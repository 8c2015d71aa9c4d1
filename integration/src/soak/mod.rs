//! Load: many containers, execs and cycles, with what the shims hold before and after.
//!
//! `make soak` runs the whole of it with progress; `tests/soak.rs` runs a tenth in `make test`.
//! Each run checks on the way that every process gave its output status and every event came once
//! and in order, and that nothing is left behind.
#![expect(
    clippy::print_stderr,
    reason = "progress goes to standard error, so that the table alone is on standard output"
)]

mod containers;
mod held;
mod kills;
mod processes;

use std::process::ExitCode;
use std::time::Instant;

use crate::target;
pub use held::Held;

/// How much one shim may grow over 10,000 execs, in kB of private memory (the design's bar).
pub const GROWTH: u64 = 64;

/// What one run found.
#[derive(Debug)]
pub struct Finding {
    /// What was done.
    pub what: String,
    /// How many shims.
    pub shims: u64,
    /// What the shim, or all shims of the run together, held before and after.
    pub before: Held,
    /// The same once all was done and settled.
    pub after: Held,
}

impl Finding {
    /// Whether the shims hold no more than before, but for [`GROWTH`] each.
    pub fn steady(&self) -> bool {
        self.after.private <= self.before.private + GROWTH * self.shims
            && self.after.descriptors <= self.before.descriptors
            && self.after.threads <= self.before.threads
    }

    /// Fails unless [`Self::steady`]; Go's shims are shown and not judged, since their runtime
    /// takes and gives back memory and threads as it likes.
    #[track_caller]
    pub fn assert_steady(&self) {
        assert!(
            self.steady() || target::flavor() == target::Flavor::Go,
            "{}: {}, then {}",
            self.what,
            self.before,
            self.after
        );
    }
}

/// Says how far a run is: so many of so many.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// One of the runs below: takes how many and whom to tell of progress.
type Run = fn(usize, Progress<'_>) -> Finding;

/// `count` containers alive at once, each in a shim of its own.
pub fn separate(count: usize, progress: Progress<'_>) -> Finding {
    containers::separate(count, progress)
}

/// `count` containers alive at once in one shim.
pub fn grouped(count: usize, progress: Progress<'_>) -> Finding {
    containers::grouped(count, progress)
}

/// `count` execs on one container, one after the other.
pub fn execs(count: usize, progress: Progress<'_>) -> Finding {
    processes::execs(count, progress)
}

/// `count` containers from create to delete in one shim, one after the other.
pub fn cycles(count: usize, progress: Progress<'_>) -> Finding {
    processes::cycles(count, progress)
}

/// `count` shims killed at random moments, and the `delete` action after each.
pub fn kills(count: usize, progress: Progress<'_>) -> Finding {
    kills::kills(count, progress)
}

const USAGE: &str = "\
usage: soak [--divide N] [separate | grouped | execs | cycles | kills] ...

The shim under test is SHIM_BINARY. Without names all five run; --divide makes them N times shorter.";

/// The whole program. The exit code is 1 when a shim held more afterwards; what goes wrong on the
/// way is told by a panic.
pub fn main() -> ExitCode {
    let (mut divide, mut names) = (1, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--divide", 1..) => divide = args.next().and_then(|n| n.parse().ok()).unwrap_or(1),
            ("separate" | "grouped" | "execs" | "cycles" | "kills", _) => names.push(arg),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    eprintln!("== load on {}", target::shim_binary().display());
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let runs: [(&str, usize, Run); 5] = [
        ("separate", 100, separate),
        ("grouped", 50, grouped),
        ("execs", 10_000, execs),
        ("cycles", 1_000, cycles),
        ("kills", 200, kills),
    ];
    let mut steady = true;
    for (name, count, run) in runs.into_iter().filter(|(name, ..)| wanted(name)) {
        if target::under_test_is_v1() && matches!(name, "grouped" | "cycles") {
            println!("{name}: not applicable: the v1 flavour has one container per shim");
            continue;
        }
        let began = Instant::now();
        let finding = run((count / divide).max(1), &|done, all| {
            if done == all || done % (all / 20).max(1) == 0 {
                eprint!("\r   {name} {done}/{all}  ");
            }
        });
        eprintln!();
        let good = finding.steady();
        steady &= good || target::flavor() == target::Flavor::Go;
        println!(
            "{:8} {:42} {:6.1} s   {}  ->  {}",
            if good { "steady" } else { "GREW" },
            finding.what,
            began.elapsed().as_secs_f64(),
            finding.before,
            finding.after
        );
    }
    ExitCode::from(u8::from(!steady))
}
