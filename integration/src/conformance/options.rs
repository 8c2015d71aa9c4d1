//! The command line of the suite.

use std::path::PathBuf;

/// How to call it.
const USAGE: &str = "\
usage: conformance --shim [KIND=]PATH ... [--runtime NAME] [--json FILE] [--tests FILTER]
                   [--jobs N] [--verify] [--record FILE [--with FILE]...] [-- NEXTEST-ARGUMENTS]

  --shim     a shim to test; several are compared side by side. KIND (wherry-v2, go-v1, rust-v2 ...)
             chooses its known differences; else it is told by -v and the file's name
  --runtime  the OCI runtime below the shim: runc (the default) or crun
  --json     also write everything to FILE
  --tests    run only what this nextest filter expression chooses
  --jobs     how many checks run at once; nextest's default otherwise
  --verify   run the known differences to their end too, which takes minutes, instead of taking
             the test's word for them: what passes is reported as stale
  --record   also write the results as a page in Markdown
  --with     a file that --json has written: its shims join the page, judged by the list as it
             is now; none need be run then";

/// What is asked for.
#[derive(Debug, Default)]
pub struct Options {
    /// Kind, where it is given, and path of each shim.
    pub shims: Vec<(Option<String>, PathBuf)>,
    /// The OCI runtime's name.
    pub runtime: String,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// A filter expression of nextest.
    pub tests: Option<String>,
    /// How many checks run at once.
    pub jobs: Option<String>,
    /// Whether known differences are run to their end.
    pub verify: bool,
    /// Where the page goes.
    pub record: Option<PathBuf>,
    /// Results of earlier runs for the page.
    pub with: Vec<PathBuf>,
    /// Passed on to nextest as they are, both when it lists the tests and when it runs them.
    pub nextest: Vec<String>,
}

impl Options {
    /// Reads the arguments, without the program's name.
    ///
    /// # Errors
    /// What to print: how it is called, after what was wrong with the arguments.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            runtime: "runc".to_owned(),
            ..Self::default()
        };
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .filter(|v| !v.is_empty())
                    .ok_or_else(|| format!("{arg} needs a value\n{USAGE}"))
            };
            match arg.as_str() {
                "--shim" => {
                    let text = value()?;
                    let shim = match text.split_once('=') {
                        Some((kind, path)) => (Some(kind.to_owned()), PathBuf::from(path)),
                        None => (None, PathBuf::from(text)),
                    };
                    options.shims.push(shim);
                }
                "--runtime" => options.runtime = value()?,
                "--json" => options.json = Some(PathBuf::from(value()?)),
                "--tests" => options.tests = Some(value()?),
                "--jobs" => options.jobs = Some(value()?),
                "--record" => options.record = Some(PathBuf::from(value()?)),
                "--with" => options.with.push(PathBuf::from(value()?)),
                "--verify" => options.verify = true,
                "--" => options.nextest = args.by_ref().collect(),
                "--help" | "-h" => return Err(USAGE.to_owned()),
                other => return Err(format!("unknown argument {other}\n{USAGE}")),
            }
        }
        let page_only = options.record.is_some() && !options.with.is_empty();
        if options.shims.is_empty() && !page_only {
            return Err(format!("no shim is named\n{USAGE}"));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn shims_may_be_several_and_named() {
        let options = parse("--shim /a/b --shim rust-v2=/c --verify -- -j 2").unwrap();
        assert_eq!(options.shims[0], (None, "/a/b".into()));
        assert_eq!(options.shims[1], (Some("rust-v2".to_owned()), "/c".into()));
        assert!(options.verify);
        assert_eq!(options.nextest, ["-j", "2"]);
        assert_eq!(options.runtime, "runc");
        let page = parse("--record p.md --with a.json --with b.json").unwrap();
        assert_eq!(page.with.len(), 2);
    }

    #[test]
    fn nonsense_is_refused_with_the_usage() {
        for line in ["", "--shim", "--frobnicate", "--json x", "--record x"] {
            assert!(parse(line).unwrap_err().contains("usage:"), "{line}");
        }
    }
}
