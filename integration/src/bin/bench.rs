//! The benchmark as a program; `bench --help` says how it is called.

use std::process::ExitCode;

fn main() -> ExitCode {
    wherry_integration::bench::main()
}
