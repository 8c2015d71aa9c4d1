//! The load runs as a program; `soak --help` says how it is called.

use std::process::ExitCode;

fn main() -> ExitCode {
    wherry_integration::soak::main()
}
