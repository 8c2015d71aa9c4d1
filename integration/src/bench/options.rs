//! The command line of the benchmark.

use std::path::PathBuf;

/// How it is called.
const USAGE: &str = "usage: bench [--quick] [--bars] [--json FILE] [--docs DIR [--readme FILE]] [--rounds N] [--only GROUP,...]
  --quick     fewer rounds of execs, less output, 1,000 execs instead of 10,000
  --bars      exit with 1 unless every bar is met
  --json FILE write all samples and verdicts there
  --docs DIR  write the page and the charts there
  --readme F  write the figures into that file, between its marks
  --rounds N  rounds of whole lives (default 300, or 30 with --quick, too few where lives vary much)
  --only      of life, exec, storm, state, idle, scale, stdout, growth, daemon, images
SHIM_BINARY and WHERRYD name the shim and the daemon to measure instead of the release builds.";

/// One group of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Whole lives of containers.
    Life,
    /// Execs in pairs with the bare runtime.
    Exec,
    /// Many containers at once.
    Storm,
    /// State calls while a Create is under way.
    State,
    /// Memory, threads and wake-ups of quiet shims.
    Idle,
    /// The same, as containers grow.
    Scale,
    /// Standard output through a FIFO.
    Stdout,
    /// Memory over many execs.
    Growth,
    /// The core daemons with containers.
    Daemon,
    /// The core daemons with images.
    Images,
}

impl Group {
    /// All groups, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Life,
        Self::Exec,
        Self::Storm,
        Self::State,
        Self::Idle,
        Self::Scale,
        Self::Stdout,
        Self::Growth,
        Self::Daemon,
        Self::Images,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Life => "life",
            Self::Exec => "exec",
            Self::Storm => "storm",
            Self::State => "state",
            Self::Idle => "idle",
            Self::Scale => "scale",
            Self::Stdout => "stdout",
            Self::Growth => "growth",
            Self::Daemon => "daemon",
            Self::Images => "images",
        }
    }

    /// What it does, for the progress.
    pub fn title(self) -> &'static str {
        match self {
            Self::Life => "whole lives",
            Self::Exec => "execs beside the bare runtime's",
            Self::Storm => "many containers at once",
            Self::State => "State calls while a Create is under way",
            Self::Scale => "idle containers, from one to many",
            Self::Idle => "ten idle shims each, for ten seconds",
            Self::Stdout => "standard output through a FIFO",
            Self::Growth => "memory over many execs",
            Self::Daemon => "the core daemons",
            Self::Images => "images on the core daemons",
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
    /// Where the page and the charts go.
    pub docs: Option<PathBuf>,
    /// The file whose block of figures is written anew.
    pub readme: Option<PathBuf>,
    /// Rounds of whole lives, if somebody says.
    rounds: Option<usize>,
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
            docs: None,
            readme: None,
            rounds: None,
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
                "--docs" => options.docs = Some(value()?.into()),
                "--readme" => options.readme = Some(value()?.into()),
                "--rounds" => {
                    let text = value()?;
                    let rounds: usize = text
                        .parse()
                        .map_err(|error| format!("--rounds {text}: {error}\n{USAGE}"))?;
                    options.rounds = Some(rounds.max(1));
                }
                "--only" => options.groups = groups(&value()?)?,
                "--help" => return Err(USAGE.to_owned()),
                _ => return Err(format!("what is {arg}?\n{USAGE}")),
            }
        }
        Ok(options)
    }

    /// Rounds of whole lives. One of them takes 60 ms by runc, give or take 12: of 30, what a shim adds
    /// came out between 6 ms and less than nothing.
    pub fn life_rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 30 } else { 300 })
    }

    /// Rounds of `ctr run`, of which the runtime's part varies as much.
    pub fn daemon_rounds(&self) -> usize {
        if self.quick { 30 } else { 100 }
    }

    /// Pairs of execs.
    pub fn exec_rounds(&self) -> usize {
        if self.quick { 40 } else { 100 }
    }

    /// Bytes of one stream of output; a multiple of 64 KiB.
    pub fn stdout_bytes(&self) -> u64 {
        if self.quick { 512 << 20 } else { 2 << 30 }
    }

    /// How many containers are started at once, and how often.
    pub fn storms(&self) -> &'static [(usize, usize)] {
        if self.quick {
            &[(1, 3), (10, 1)]
        } else {
            &[(1, 10), (10, 3), (50, 3)]
        }
    }

    /// Creates under which a shim is asked for States.
    pub fn creates(&self) -> usize {
        if self.quick { 5 } else { 20 }
    }

    /// Numbers of idle containers, each at least the one before.
    pub fn levels(&self) -> &'static [usize] {
        if self.quick {
            &[1, 10, 50]
        } else {
            &[1, 10, 100, 500]
        }
    }

    /// Starts of each daemon.
    pub fn boots(&self) -> usize {
        if self.quick { 5 } else { 20 }
    }

    /// How often many containers are started at once on each daemon.
    pub fn daemon_storms(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// Idle containers on each daemon.
    pub fn herd(&self) -> usize {
        if self.quick { 50 } else { 500 }
    }

    /// Imports of an image into each daemon, and pulls.
    pub fn transfers(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }

    /// Lists of many records of each daemon.
    pub fn lists(&self) -> usize {
        if self.quick { 10 } else { 30 }
    }

    /// Snapshots made and removed in each daemon.
    pub fn prepares(&self) -> usize {
        if self.quick { 50 } else { 200 }
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
        assert_eq!((options.life_rounds(), options.growth_execs()), (7, 1_000));
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
