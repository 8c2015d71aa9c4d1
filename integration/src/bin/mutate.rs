//! The mutation round as a program; `mutate --help` says how it is called.

use std::process::ExitCode;

fn main() -> ExitCode {
    wherry_integration::mutate::main()
}
