//! The benchmark: our shim beside Go's and the bare runtime, in one run, interleaved round by
//! round, so that what else the machine does meets all of them alike.
//!
//! `life.rs` times a container's whole life, `execs.rs` execs in pairs with the bare runtime,
//! `storm.rs` many containers at once, `answers.rs` State calls while a Create is under way,
//! `idle.rs` what a quiet shim holds, `scale.rs` what many hold, `relay.rs` the way of standard
//! output, `growth.rs` memory over many execs, `daemon/` the core daemons. `catalogue.rs` says what
//! each metric means, `bars.rs` holds the bars and says which are met; `report.rs`, `page.rs` and
//! `charts.rs` show it all.
#![expect(
    clippy::print_stderr,
    reason = "progress goes to standard error, so that the table alone is on standard output"
)]

pub mod answers;
pub mod bars;
pub mod catalogue;
pub mod charts;
pub mod daemon;
pub mod execs;
pub mod growth;
mod hands;
pub mod idle;
pub mod life;
pub mod options;
pub mod page;
pub mod process;
pub mod relay;
pub mod report;
pub mod rig;
pub mod runtime;
pub mod samples;
pub mod scale;
pub mod storm;
pub mod svg;
pub mod versions;

use std::process::ExitCode;

use options::{Group, Options};
use rig::Subject;
use samples::Samples;

use crate::bed::Bed;

/// The whole program: measures what the command line asks for and prints the table.
///
/// The exit code is 1 when `--bars` was given and a bar was missed or not measured, 2 for a
/// command line that makes no sense.
pub fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    crate::hybrid::hide();
    let subjects = rig::subjects();
    for subject in &subjects {
        eprintln!("{:8} {}", subject.name, subject.binary.display());
    }
    let samples = measure(&options, &subjects);
    let verdicts = bars::judge(&samples);
    for metric in catalogue::unknown(&samples) {
        eprintln!("no table has {metric}: catalogue.rs lacks it");
    }
    println!("{}", report::table(&samples, &verdicts));
    if let Some(path) = &options.json {
        let text = report::json(&samples, &verdicts, &options).to_string();
        if let Err(error) = std::fs::write(path, text + "\n") {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if let Err(error) = page::write(&options, &samples, &verdicts) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let missed = verdicts.iter().any(|v| v.met != Some(true));
    if options.bars && missed {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn measure(options: &Options, subjects: &[Subject]) -> Samples {
    let mut samples = Samples::default();
    for group in &options.groups {
        eprintln!("== {}", group.title());
        // A bed for each group: what one leaves cannot weigh on the next.
        let bed = Bed::new();
        match group {
            Group::Life => life::measure(&bed, options, subjects, &mut samples),
            Group::Exec => execs::measure(&bed, options, subjects, &mut samples),
            Group::Idle => idle::measure(&bed, subjects, &mut samples),
            Group::Storm => storm::measure(&bed, options, subjects, &mut samples),
            Group::State => answers::measure(&bed, options, subjects, &mut samples),
            Group::Scale => scale::measure(&bed, options, subjects, &mut samples),
            Group::Stdout => relay::measure(&bed, options, subjects, &mut samples),
            Group::Growth => growth::measure(&bed, options, subjects, &mut samples),
            Group::Daemon => daemon::measure(options, &mut samples),
            Group::Images => daemon::measure_images(options, &mut samples),
        }
    }
    samples
}

/// Says how far it is, one line that the next overwrites.
pub(crate) fn progress(done: usize, all: usize) {
    eprint!("\r   {done}/{all}");
    if done == all {
        eprintln!();
    }
}
