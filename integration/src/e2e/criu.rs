//! A criu that works on this kernel, for checkpoint and restore.

use std::path::PathBuf;

use super::containerd::Containerd;
use super::run::{command, run};
use super::shims::target_dir;

/// A criu whose own check says that it works here.
pub struct Criu {
    program: PathBuf,
}

impl Criu {
    /// Looks for a working criu in PATH, and where `make deps-test` puts one.
    ///
    /// # Errors
    ///
    /// Why there is none, for a test to say that it is skipped.
    pub fn find() -> Result<Criu, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut reason = "there is no criu in PATH, nor where `make deps-test` puts it".to_owned();
        let folders = std::env::split_paths(&path).chain([target_dir().join("tools/bin")]);
        for program in folders
            .map(|folder| folder.join("criu"))
            .filter(|path| path.is_file())
        {
            let check = run(command(&program, ["check"]));
            if check.code == 0 {
                let program = program.canonicalize().unwrap_or(program);
                return Ok(Criu { program });
            }
            reason = format!("`{} check` says {}", program.display(), check.stderr.trim());
        }
        Err(reason)
    }

    /// Lets the runtime of `node` find this criu: it is looked for in PATH.
    pub fn offer_to(&self, node: &Containerd) {
        node.add_program("criu", &format!("exec {} \"$@\"", self.program.display()));
    }
}
