//! The runc-v1 shim.
fn main() {}
