//! What is to be said about a configuration file.

use std::path::{Path, PathBuf};

/// One thing that whoever wrote a configuration should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file it is about.
    pub file: PathBuf,
    /// Its line, from 1 on.
    pub line: usize,
    /// Whether the file is refused for it. Anything else is a warning.
    pub is_error: bool,
    /// The key and what is the matter with it.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem for which the file is refused.
    pub fn error(file: &Path, line: usize, text: impl Into<String>, remedy: &str) -> Self {
        Self {
            file: file.to_owned(),
            line,
            is_error: true,
            text: text.into(),
            remedy: remedy.to_owned(),
        }
    }

    /// A problem in spite of which the file is read.
    pub fn warning(file: &Path, line: usize, text: impl Into<String>, remedy: &str) -> Self {
        Self {
            is_error: false,
            ..Self::error(file, line, text, remedy)
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, line) = (self.file.display(), self.line);
        write!(f, "{file}:{line}: {}; {}", self.text, self.remedy)
    }
}
