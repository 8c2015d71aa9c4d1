//! The conformance suite as a program; `conformance --help` says how it is called.

use std::process::ExitCode;

fn main() -> ExitCode {
    wherry_integration::conformance::main()
}
