//! The C library's allocator, set up for a process that is idle for most of its life: what is freed
//! goes back to the kernel instead of waiting for the next burst (ADR 0002).

use std::ffi::OsStr;

/// The environment variable by which glibc takes settings that no call can change.
pub const VARIABLE: &str = "GLIBC_TUNABLES";

/// No cache per thread: it keeps up to 230 kB of freed pieces, each of which also holds its page.
/// The `start` action gives it to the served process, unless the operator has settings of their own.
pub const SETTING: &str = "glibc.malloc.tcache_count=0";

/// Whether this entry of the environment is ours, and none of the runtime's business.
pub fn is_ours(name: &OsStr, value: &OsStr) -> bool {
    name == VARIABLE && value == SETTING
}

/// Settings of the served process, before its first thread.
pub fn set_up() {
    // A helper thread would otherwise leave a heap of its own behind.
    sys::process::arena_limit();
}

/// Gives freed memory back to the kernel. It takes some ten microseconds.
pub fn trim() {
    sys::process::trim_heap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_setting_is_kept_from_the_runtime() {
        let is_ours = |name: &str, value: &str| is_ours(name.as_ref(), value.as_ref());
        assert!(is_ours(VARIABLE, SETTING));
        assert!(!is_ours(VARIABLE, "glibc.malloc.check=3"));
        assert!(!is_ours("PATH", SETTING));
    }
}
