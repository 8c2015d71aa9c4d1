//! Has nextest run the checks on one shim and listens to what it tells.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::options::Options;

/// The tests that play containerd themselves; those that need an engine are no checks of a shim
/// alone, and the long runs have a program of their own.
const CHECKS: &str = "package(wherry-integration) & kind(test) & not binary(/^(e2e|soak|foreign_shim|harness)/) \
    & not test(/^slow_/) & not test(=peer_of_another_uid) & not test(=many_execs_among_few_pids)";

/// How a test ended, before it is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// It held.
    Passed,
    /// It did not, with the panic's words.
    Failed(String),
    /// It was not run, since the machine lacks something.
    Skipped(String),
    /// The test knows that this shim does it otherwise.
    Differs(String),
}

/// One test's end.
#[derive(Debug)]
pub struct Outcome {
    /// `file::test`.
    pub test: String,
    /// How it ended.
    pub raw: Raw,
    /// How long it took.
    pub seconds: f64,
}

/// What nextest says, line by line; other fields are of no interest.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    exec_time: f64,
    #[serde(default)]
    stdout: String,
}

/// Runs the checks on the shim at `path`; `tell` gets each outcome and the number of all checks.
///
/// # Errors
/// When nextest does not run, or does not say what it should.
pub fn run(
    path: &Path,
    options: &Options,
    tell: &mut dyn FnMut(Outcome, usize),
) -> Result<(), String> {
    let notes = tempfile::NamedTempFile::new().map_err(|e| format!("a file for notes: {e}"))?;
    let filter = match &options.tests {
        Some(tests) => format!("{CHECKS} & ({tests})"),
        None => CHECKS.to_owned(),
    };
    let all = count(&filter, options)?;
    let mut command = nextest("run", &filter, options);
    command
        .args(["--no-fail-fast", "--message-format", "libtest-json-plus"])
        .env("NEXTEST_EXPERIMENTAL_LIBTEST_JSON", "1")
        .env("SHIM_BINARY", path)
        .env("RUNTIME", &options.runtime)
        .env("SHIM_NOTES", notes.path())
        // The checks that wait for more than a minute are left out of `make test` alone.
        .env("WHERRY_SLOW", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(jobs) = &options.jobs {
        command.args(["--test-threads", jobs]);
    }
    if options.verify {
        command.env("SHIM_RUN_DIFFERENCES", "1");
    }
    let failed = |e: std::io::Error| format!("cargo nextest: {e}");
    let mut child = command.spawn().map_err(failed)?;
    // nextest tells people what it does; only its last words matter, when it fails.
    let stderr = child.stderr.take().ok_or("nextest has no standard error")?;
    let words = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    let stdout = child
        .stdout
        .take()
        .ok_or("nextest has no standard output")?;
    let mut seen = 0;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(failed)?;
        let Ok(line) = serde_json::from_str::<Line>(&line) else {
            continue;
        };
        if line.kind == "test" && line.event != "started" && line.event != "ignored" {
            seen += 1;
            tell(outcome(&line, notes.path()), all);
        }
    }
    let status = child.wait().map_err(failed)?;
    let words = words.join().unwrap_or_default();
    // 100: some tests failed, which is ours to judge.
    if seen == all && matches!(status.code(), Some(0 | 100)) {
        return Ok(());
    }
    Err(format!(
        "{seen} of {all} checks ran, nextest ended with {status}:\n{words}"
    ))
}

/// A call of nextest on the chosen tests.
fn nextest(action: &str, filter: &str, options: &Options) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["nextest", action, "-E", filter])
        .args(&options.nextest)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    // Told where the tests are built already, nextest takes no package to build.
    let built = ["--binaries-metadata", "--archive-file"];
    if !options
        .nextest
        .iter()
        .any(|a| built.iter().any(|b| a.starts_with(b)))
    {
        command.args(["--locked", "-p", "wherry-integration"]);
    }
    command
}

/// How many tests the filter chooses; builds them, if need be.
fn count(filter: &str, options: &Options) -> Result<usize, String> {
    let mut command = nextest("list", filter, options);
    command
        .args(["--message-format", "oneline"])
        .stderr(Stdio::inherit());
    let output = command
        .output()
        .map_err(|e| format!("cargo nextest: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo nextest list ended with {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().count())
}

/// What one line of nextest and the notes of the tests say together.
fn outcome(line: &Line, notes: &Path) -> Outcome {
    let test = match line.name.rsplit_once('$') {
        Some((binary, test)) => {
            let file = binary.rsplit("::").next().unwrap_or_default();
            format!("{file}::{test}")
        }
        None => line.name.clone(),
    };
    let raw = if line.event == "ok" {
        let notes = std::fs::read_to_string(notes).unwrap_or_default();
        read_notes(&notes)
            .remove(test.as_str())
            .unwrap_or(Raw::Passed)
    } else {
        Raw::Failed(last_words(&line.stdout))
    };
    Outcome {
        test,
        raw,
        seconds: line.exec_time,
    }
}

/// The notes by test: `kind: file::test: reason`.
fn read_notes(text: &str) -> HashMap<&str, Raw> {
    text.lines()
        .filter_map(|line| {
            let (kind, rest) = line.split_once(": ")?;
            let (test, reason) = rest.split_once(": ")?;
            let raw = match kind {
                "skipped" => Raw::Skipped(reason.to_owned()),
                "differs" => Raw::Differs(reason.to_owned()),
                _ => return None,
            };
            Some((test, raw))
        })
        .collect()
}

/// The panic's message: the place and the lines after it, in one line.
fn last_words(output: &str) -> String {
    let mut lines = output.lines().skip_while(|l| !l.contains("panicked at "));
    let Some(head) = lines.next() else {
        return "ended without a word, or ran out of time".to_owned();
    };
    let place = head.split_once("panicked at ").map_or("", |(_, p)| p);
    let words: Vec<&str> = lines
        .take_while(|l| !l.starts_with("note: ") && !l.starts_with("stack backtrace"))
        .take(6)
        .map(str::trim)
        .collect();
    let mut text = format!("{} ({})", words.join(" "), place.trim_end_matches(':'));
    if let Some((at, _)) = text.char_indices().nth(400) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Raw, last_words, read_notes};

    #[test]
    fn notes_are_read_by_test() {
        let notes = read_notes("differs: state::init::kill: why: so\nskipped: a::b: no criu\nx\n");
        assert_eq!(
            notes["state::init::kill"],
            Raw::Differs("why: so".to_owned())
        );
        assert_eq!(notes["a::b"], Raw::Skipped("no criu".to_owned()));
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn a_panic_is_told_in_one_line() {
        let output = "running 1 test\n\nthread 'x' panicked at tests/a.rs:3:5:\nnot within 1s: it\n\
                      note: run with\n";
        assert_eq!(last_words(output), "not within 1s: it (tests/a.rs:3:5)");
        assert!(last_words("killed").contains("without a word"));
    }
}
