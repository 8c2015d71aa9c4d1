//! The runc-v1 shim: one container per shim.

use std::process::ExitCode;

use shim_runc::flavor::Flavor;

fn main() -> ExitCode {
    shim_runc::manager::main(Flavor::V1)
}
