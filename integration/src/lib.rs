//! Black-box tests and benchmarks for runtime-v2 shims: the part of containerd, played over ttrpc.
//!
//! Nothing here sees shim code: the binaries under test are a parameter.

pub mod e2e;
