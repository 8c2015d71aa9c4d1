//! The command line of the benchmark.

use std::path::PathBuf;

/// How it is called.
const USAGE: &str = "usage: bench [--quick] [--bars] [--json FILE] [--rounds N] [--only GROUP,...]
  --quick     fewer rounds of execs, less output, 1,000 execs instead of 10,000
  --bars      exit with 1 unless every bar is met
  --json FILE write all samples and verdicts there
  --rounds N  rounds of whole lives (default 30, at least 20 for the bars)
  --only      of life, exec, idle, stdout, growth
SHIM_BINARY names the shim to measure instead of the release build of the workspace.";

/// One group of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Whole lives of containers.
    Life,
    /// Execs in pairs with the bare runtime.
    Exec,
    /// Memory, threads and wake-ups of quiet shims.
    Idle,
    /// Standard output through a FIFO.
    Stdout,
    /// Memory over many execs.
    Growth,
}

impl Group {
    /// All groups, in the order of the table.
    pub const ALL: [Self; 5] = [
        Self::Life,
        Self::Exec,
        Self::Idle,
        Self::Stdout,
        Self::Growth,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Life => "life",
            Self::Exec => "exec",
            Self::Idle => "idle",
            Self::Stdout => "stdout",
            Self::Growth => "growth",
        }
    }

    /// What it does, for the progress.
    pub fn title(self) -> &'static str {
        match self {
            Self::Life => "whole lives",
            Self::Exec => "execs beside the bare runtime's",
            Self::Idle => "ten idle shims each, for ten seconds",
            Self::Stdout => "standard output through a FIFO",
            Self::Growth => "memory over many execs",
        }
    }
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Less of everything that takes minutes.
    pub quick: bool,
    /// Fail when a bar is missed.
    pub bars: bool,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// Rounds of whole lives.
    pub rounds: usize,
    /// What is measured.
    pub groups: Vec<Group>,
}

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// The text to print: the fault, or how the program is called.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            quick: false,
            bars: false,
            json: None,
            rounds: 30,
            groups: Group::ALL.to_vec(),
        };
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| format!("{arg} wants a value\n{USAGE}"))
            };
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--bars" => options.bars = true,
                "--json" => options.json = Some(value()?.into()),
                "--rounds" => {
                    let text = value()?;
                    let rounds: usize = text
                        .parse()
                        .map_err(|error| format!("--rounds {text}: {error}\n{USAGE}"))?;
                    options.rounds = rounds.max(1);
                }
                "--only" => options.groups = groups(&value()?)?,
                "--help" => return Err(USAGE.to_owned()),
                _ => return Err(format!("what is {arg}?\n{USAGE}")),
            }
        }
        Ok(options)
    }

    /// Pairs of execs.
    pub fn exec_rounds(&self) -> usize {
        if self.quick { 40 } else { 100 }
    }

    /// Bytes of one stream of output; a multiple of 64 KiB.
    pub fn stdout_bytes(&self) -> u64 {
        if self.quick { 512 << 20 } else { 2 << 30 }
    }

    /// Execs on one container.
    pub fn growth_execs(&self) -> usize {
        if self.quick { 1_000 } else { 10_000 }
    }
}

fn groups(list: &str) -> Result<Vec<Group>, String> {
    list.split(',')
        .map(|name| {
            let found = Group::ALL.into_iter().find(|g| g.name() == name);
            found.ok_or_else(|| format!("no group is named {name:?}\n{USAGE}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        Options::parse(args.iter().map(|a| (*a).to_owned()))
    }

    #[test]
    fn a_command_line_is_read() {
        let options = parse(&["--quick", "--only", "idle,life", "--rounds", "7"]).unwrap();
        assert!(options.quick && !options.bars);
        assert_eq!(options.groups, [Group::Idle, Group::Life]);
        assert_eq!((options.rounds, options.growth_execs()), (7, 1_000));
    }

    #[test]
    fn nonsense_is_told() {
        for bad in [
            &["--only", "lif"][..],
            &["--rounds", "x"],
            &["--json"],
            &["x"],
        ] {
            assert!(parse(bad).unwrap_err().contains("usage"), "{bad:?}");
        }
    }
}
