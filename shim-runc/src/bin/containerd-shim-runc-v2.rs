//! The runc-v2 shim.
fn main() {}
