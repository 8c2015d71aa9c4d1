//! What the linker is told about `wherryd`.
//!
//! The standard library starts programs by posix_spawn(3) only if two functions of glibc are there,
//! which it refers to weakly; in a static program they are there only if something else asks for
//! them. Without them it forks: the daemon's page table is copied for each shim, and each page that
//! the daemon writes to before the shim runs is copied after it (docs/adr/0016).

/// The version, which says that posix_spawn tells of errors, and how a child gets its directory.
const WANTED: [&str; 2] = [
    "gnu_get_libc_version",
    "posix_spawn_file_actions_addchdir_np",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu") {
        for symbol in WANTED {
            println!("cargo:rustc-link-arg-bin=wherryd=-Wl,--undefined={symbol}");
        }
    }
}
