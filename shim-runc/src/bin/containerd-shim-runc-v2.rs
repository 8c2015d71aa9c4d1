//! The runc-v2 shim: one shim for a group of containers, usually a pod.

use std::process::ExitCode;

use shim_runc::flavor::Flavor;

fn main() -> ExitCode {
    shim_runc::manager::main(Flavor::V2)
}
