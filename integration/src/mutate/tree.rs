//! A copy of the shims' sources, where defects are put in and built without touching the tree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde::Deserialize;

/// The copy, below the target folder so that a second round builds fast.
pub(super) struct Tree {
    dir: PathBuf,
}

/// Puts the file back when it is dropped.
pub(super) struct Undo {
    path: PathBuf,
    text: String,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.text) {
            panic!("{}: {error}", self.path.display());
        }
    }
}

/// The files beside the members of the workspace that a build reads.
const FILES: [&str; 3] = ["Cargo.toml", "Cargo.lock", "clippy.toml"];

/// What is read of the workspace's manifest: cargo wants every member there, whatever it builds.
#[derive(Deserialize)]
struct Manifest {
    workspace: Workspace,
}

#[derive(Deserialize)]
struct Workspace {
    members: Vec<String>,
}

/// The files and folders that make a workspace of the copy.
fn parts(root: &Path) -> Result<Vec<String>, String> {
    let path = root.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let manifest: Manifest =
        toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut parts = manifest.workspace.members;
    parts.extend(FILES.map(str::to_owned));
    Ok(parts)
}

impl Tree {
    /// Copies the sources of this tree.
    pub(super) fn copy() -> Result<Self, String> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let dir = root.join("target/mutants");
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for part in parts(root)? {
            copy(&root.join(&part), &dir.join(&part))
                .map_err(|e| format!("copy {part} to {}: {e}", dir.display()))?;
        }
        Ok(Self { dir })
    }

    /// Replaces `old`, which must stand in `file` exactly once, by `new`.
    pub(super) fn change(&self, file: &Path, old: &str, new: &str) -> Result<Undo, String> {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (old, new) = (old.trim_matches('\n'), new.trim_matches('\n'));
        let count = text.matches(old).count();
        if count != 1 {
            return Err(format!(
                "the text stands in {} {count} times",
                file.display()
            ));
        }
        let changed = text.replacen(old, new, 1);
        fs::write(&path, changed).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Undo { path, text })
    }

    /// Builds the v2 shim, unoptimised; the path of the program.
    pub(super) fn build(&self) -> Result<PathBuf, String> {
        let target = self.dir.join("target");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "-p", "wherry-shim-runc"])
            .args(["--bin", "containerd-shim-runc-v2", "--target-dir"])
            .arg(&target)
            .current_dir(&self.dir)
            .output()
            .map_err(|e| format!("cargo build: {e}"))?;
        if output.status.success() {
            return Ok(target.join("debug/containerd-shim-runc-v2"));
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let error = text.lines().find(|l| l.starts_with("error"));
        Err(error.unwrap_or("it does not build").to_owned())
    }

    /// Copies a built program, which the next build replaces; the path of the copy.
    pub(super) fn keep(&self, program: &Path, name: &str) -> Result<PathBuf, String> {
        let folder = self.dir.join(name);
        let copy = folder.join(program.file_name().unwrap_or_default());
        fs::create_dir_all(&folder)
            .and_then(|()| fs::copy(program, &copy))
            .map_err(|e| format!("{}: {e}", copy.display()))?;
        Ok(copy)
    }
}

/// Copies a file or folder. What is the same already keeps its time, so that it is not built again;
/// what differs, such as a defect whose round was interrupted, gets a new one, so that it is.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let text = fs::read(from)?;
    // One that is not there yet differs too.
    if fs::read(to).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::write(to, text)
}
