//! Shims that hang, crash or answer rubbish; full disks; a second daemon; a damaged database: an
//! error that says what is wrong, nothing lost, and the daemon lives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests run programs, and end where something is not as it must be"
)]

mod common;
#[path = "faults/disk.rs"]
mod disk;
#[path = "common/disk.rs"]
mod disks;
#[path = "faults/shims.rs"]
mod shims;
