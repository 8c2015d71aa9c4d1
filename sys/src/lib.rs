//! What shims and daemon need of the kernel, as safe functions. This is the only crate of the
//! project that may contain unsafe code; each unsafe block states why it is sound.

mod errno;
pub mod eventfd;
pub mod fs;
pub mod inotify;
pub mod klog;
pub mod memfd;
pub mod mount;
pub mod pidfd;
pub mod pipe;
pub mod process;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod tree;
pub mod tty;
pub mod wait;
pub mod xattr;
