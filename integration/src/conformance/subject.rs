//! A shim under test: where it lies, what it says of itself and which list of differences is its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One shim.
#[derive(Debug)]
pub struct Subject {
    /// `wherry-v2`, `wherry-v1`, `go-v2`, `go-v1` or `rust-v2`, by which differences are listed; none
    /// are of `other`.
    pub kind: String,
    /// The program, an absolute path.
    pub path: PathBuf,
    /// Its version, as it tells it.
    pub version: String,
}

impl Subject {
    /// Asks the program at `path` for its version; `kind` overrides what is found out.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn look(kind: Option<&str>, path: &Path) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let path = path.canonicalize().map_err(failed)?;
        let output = Command::new(&path).arg("-v").output().map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text
            .lines()
            .find_map(|l| l.trim().strip_prefix("Version:"))
            .map_or("version unknown", str::trim)
            .to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = kind.map_or_else(|| kind_of(&name, &text).to_owned(), str::to_owned);
        Ok(Self {
            kind,
            path,
            version,
        })
    }
}

/// The kind by the program's name and by what `-v` printed.
fn kind_of(name: &str, version: &str) -> &'static str {
    let v1 = name.contains("runc-v1");
    if version.contains("Go version") {
        if v1 { "go-v1" } else { "go-v2" }
    } else if name.ends_with("-rs") {
        "rust-v2"
    } else if v1 {
        "wherry-v1"
    } else if name.contains("runc-v2") {
        "wherry-v2"
    } else {
        "other"
    }
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn the_kind_is_told_by_name_and_version() {
        assert_eq!(
            kind_of("containerd-shim-runc-v1", "Go version: go1.19"),
            "go-v1"
        );
        assert_eq!(
            kind_of("containerd-shim-runc-v2", "  Version: 0.1.0"),
            "wherry-v2"
        );
        assert_eq!(kind_of("containerd-shim-runc-v2-rs", ""), "rust-v2");
        assert_eq!(kind_of("containerd-shim-foreign-v1", ""), "other");
    }
}
