//! Many cycles of everything: what a shim holds afterwards is what it held before.
