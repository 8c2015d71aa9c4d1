//! Which version the daemon says it is.

/// What clients are told over the API. They choose by it how to pull: below 2.0 they do so
/// themselves, which is what this daemon needs while it has no transfer service.
pub const API: &str = concat!("1.7.0+wherry.", env!("CARGO_PKG_VERSION"));
/// What is shown as the revision.
pub const REVISION: &str = "wherry";

/// What `--version` prints under the name `program`: program, package, version and revision, in
/// the four words that scripts take containerd's apart by. Under containerd's own name the version
/// is the one of the API, which is what such scripts ask after.
pub fn line(program: &str) -> String {
    let version = if program == "containerd" {
        API
    } else {
        env!("CARGO_PKG_VERSION")
    };
    format!("{program} wherry {version} {REVISION}\n")
}
