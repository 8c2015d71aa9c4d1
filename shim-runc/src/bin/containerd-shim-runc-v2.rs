//! The runc-v2 shim: `io.containerd.runc.v2`.

use std::process::ExitCode;

use shim_runc::flavor::Flavor;

fn main() -> ExitCode {
    shim_runc::manager::main(Flavor::V2)
}
