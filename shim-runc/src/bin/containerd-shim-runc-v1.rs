//! The runc-v1 shim: `io.containerd.runc.v1`.

use std::process::ExitCode;

use shim_runc::flavor::Flavor;

fn main() -> ExitCode {
    shim_runc::manager::main(Flavor::V1)
}
