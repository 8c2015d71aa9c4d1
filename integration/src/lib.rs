//! Black-box tests and benchmarks for runtime-v2 shims: the part of containerd, played over ttrpc.
