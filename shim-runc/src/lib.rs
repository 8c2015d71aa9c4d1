//! The runc shims: one code base, two tiny binaries.

pub mod allocator;
pub mod container;
pub mod delete;
pub mod flavor;
pub mod info;
pub mod manager;
pub mod process;
pub mod runc;
pub mod service;
pub mod supervisor;
