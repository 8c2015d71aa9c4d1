//! The command line, the configuration and the start of the real binary, beside Debian's
//! containerd where both must say the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test ends where something is not as it must be"
)]

#[path = "../common/mod.rs"]
mod common;

mod command_line;
mod files;
mod served;

use std::path::Path;
use std::process::Command;

use common::{Ran, run};

const WHERRYD: &str = env!("CARGO_BIN_EXE_wherryd");
const OLD: &str = include_str!("../../src/config/testdata/1.2.4.toml");

fn wherryd(arguments: &[&str]) -> Ran {
    run(Command::new(WHERRYD).args(arguments))
}

/// What containerd makes of a file.
fn containerd_dump(file: &Path) -> toml::Table {
    let dump = run(Command::new("containerd").args(["--config", text(file), "config", "dump"]));
    toml::from_str(&dump.ok()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
