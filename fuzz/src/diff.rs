//! What the daemon's `diff` has of modules, but for those that need a daemon around them.

#[path = "../../daemon/src/diff/apply.rs"]
pub mod apply;
#[path = "../../daemon/src/diff/changes.rs"]
pub mod changes;
#[path = "../../daemon/src/diff/fault.rs"]
pub mod fault;
#[path = "../../daemon/src/diff/inodes.rs"]
mod inodes;
#[path = "../../daemon/src/diff/media.rs"]
pub mod media;
#[path = "../../daemon/src/diff/metadata.rs"]
mod metadata;
#[path = "../../daemon/src/diff/names.rs"]
mod names;
#[path = "../../daemon/src/diff/resolve.rs"]
mod resolve;
#[path = "../../daemon/src/diff/space.rs"]
mod space;
#[path = "../../daemon/src/diff/spool.rs"]
mod spool;
#[path = "../../daemon/src/diff/stream.rs"]
pub mod stream;
#[path = "../../daemon/src/diff/tar/mod.rs"]
pub mod tar;
#[path = "../../daemon/src/diff/target/mod.rs"]
pub mod target;
#[path = "../../daemon/src/diff/write.rs"]
pub mod write;
